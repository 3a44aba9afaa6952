"""What frameworks need to use this package; each module imports its framework, and nothing else of
this package may import any of them."""
