"""Instructions per command, counted by valgrind, held against those in the repository."""
