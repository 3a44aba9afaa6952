/* The physical limit: one request sent and its reply received, over and over, into one buffer.
 *
 *     bare HOST PORT TIMEOUT REQUEST_FILE REPLY_SIZE COUNT      (PORT 0: HOST is a UNIX socket)
 *
 * prints, as JSON, the seconds of user CPU, system CPU and wall time of the loop alone; with COUNT 0
 * it does one and prints the reply instead.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int connected(const char *host, int port, double timeout) {
    int fd = socket(port ? AF_INET : AF_UNIX, SOCK_STREAM, 0);
    int result;
    if (port) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
        inet_pton(AF_INET, host, &address.sin_addr);
        result = connect(fd, (struct sockaddr *)&address, sizeof address);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    } else {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strncpy(address.sun_path, host, sizeof address.sun_path - 1);
        result = connect(fd, (struct sockaddr *)&address, sizeof address);
    }
    if (fd < 0 || result < 0) fail("connect");
    struct timeval limit = {(time_t)timeout, (suseconds_t)((timeout - (time_t)timeout) * 1e6)};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static void exchange(int fd, const char *request, size_t length, char *reply, size_t size) {
    for (size_t sent = 0; sent < length;) {
        ssize_t count = send(fd, request + sent, length - sent, MSG_NOSIGNAL);
        if (count <= 0) fail("send");
        sent += count;
    }
    for (size_t received = 0; received < size;) {
        ssize_t count = recv(fd, reply + received, size - received, 0);
        if (count <= 0) fail("recv");
        received += count;
    }
}

static double seconds(struct timeval time) { return time.tv_sec + time.tv_usec / 1e6; }

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    int fd = connected(argv[1], atoi(argv[2]), atof(argv[3]));
    FILE *file = fopen(argv[4], "rb");
    if (!file) fail(argv[4]);
    fseek(file, 0, SEEK_END);
    size_t length = ftell(file), size = strtoull(argv[5], NULL, 10);
    rewind(file);
    char *request = malloc(length), *reply = malloc(size);
    if (!request || !reply || fread(request, 1, length, file) != length) fail("request");
    unsigned long long count = strtoull(argv[6], NULL, 10);
    exchange(fd, request, length, reply, size);
    if (count == 0) return fwrite(reply, 1, size, stdout) != size;
    struct rusage before, after;
    struct timespec began, ended;
    getrusage(RUSAGE_SELF, &before);
    clock_gettime(CLOCK_MONOTONIC, &began);
    while (count--) exchange(fd, request, length, reply, size);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    getrusage(RUSAGE_SELF, &after);
    printf("{\"user\": %.9g, \"system\": %.9g, \"wall\": %.9g}\n",
           seconds(after.ru_utime) - seconds(before.ru_utime),
           seconds(after.ru_stime) - seconds(before.ru_stime),
           ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) / 1e9);
    return 0;
}
