"""What the functions of WASI preview 1 are for, in a few words each.

References
----------
WebAssembly/WASI, legacy/preview1/docs.md.
"""

from __future__ import annotations

MEANING = {
    "args_get": "read the arguments",
    "args_sizes_get": "how much room the arguments need",
    "clock_res_get": "how fine a clock is",
    "clock_time_get": "what time it is",
    "environ_get": "read the environment variables",
    "environ_sizes_get": "how much room the environment needs",
    "fd_advise": "say how a file will be read",
    "fd_close": "close a descriptor",
    "fd_fdstat_get": "what a descriptor is (a terminal?) and may do",
    "fd_fdstat_set_flags": "change a descriptor's flags",
    "fd_filestat_get": "size and times of an open file",
    "fd_filestat_set_size": "shorten or lengthen an open file",
    "fd_pread": "read at a place in a file",
    "fd_prestat_dir_name": "under what name a directory was given",
    "fd_prestat_get": "which directories were given",
    "fd_pwrite": "write at a place in a file",
    "fd_read": "read from a descriptor",
    "fd_readdir": "list a directory",
    "fd_seek": "move within a file",
    "fd_sync": "wait until a file is on disk",
    "fd_tell": "where in a file one is",
    "fd_write": "write to a descriptor",
    "path_create_directory": "make a directory below one that was given",
    "path_filestat_get": "size and times of a file",
    "path_open": "open a file below a directory that was given",
    "path_remove_directory": "remove a directory",
    "path_rename": "rename a file",
    "path_unlink_file": "remove a file",
    "poll_oneoff": "wait for time to pass or data to arrive",
    "proc_exit": "end, with an exit code",
    "random_get": "random bytes",
    "sched_yield": "let others run",
}
