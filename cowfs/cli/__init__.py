"""The command line: one module for each command (or pair of them), progress on a terminal, exit codes.

Commands print results on standard output and everything else on standard error. Exit codes: 0 done, 1 the data is bad or the
work failed, 2 the command was wrong. A mistake of the user prints one line.
"""
