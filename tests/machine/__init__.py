"""Many consensus machines, and nothing else, in one process under virtual time: light blocks, stand-in signatures.

So it drives thousands of views a second; what surrounds the machine in a member is as simple as it can be.
"""
