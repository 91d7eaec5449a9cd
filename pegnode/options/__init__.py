"""How options get from a file to a process and back; what they are is in `pegnode.config`."""
