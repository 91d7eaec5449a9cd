"""What `peg doctor` looks at: everything around a process that may keep it from its work. Nothing is ever changed.

Each check is a small function from facts to findings; what gathers the facts from the machine stands beside it. No
check needs the process to be stopped, or to run, and none stops at what another finds.
"""
