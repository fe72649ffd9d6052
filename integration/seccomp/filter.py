#!/usr/bin/env python3
"""Writes the seccomp program of a process, an array of struct sock_filter, to a file.

usage: filter.py PID FILE        (as root: PTRACE_SECCOMP_GET_FILTER asks for CAP_SYS_ADMIN)
"""
import ctypes
import os
import sys

ATTACH, DETACH, GET_FILTER = 16, 17, 0x420C
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, pid, addr=None, data=None):
    answer = libc.ptrace(request, pid, addr, data)
    if answer < 0:
        sys.exit(f"ptrace {request:#x} of {pid}: {os.strerror(ctypes.get_errno())}")
    return answer


def main():
    pid, path = int(sys.argv[1]), sys.argv[2]
    ptrace(ATTACH, pid)
    os.waitpid(pid, 0x40000000)  # __WALL
    # The filter loaded last is number 0; there must be no other.
    count = ptrace(GET_FILTER, pid, 0)
    program = ctypes.create_string_buffer(8 * count)
    ptrace(GET_FILTER, pid, 0, ctypes.addressof(program))
    more = libc.ptrace(GET_FILTER, pid, 1, None)
    ptrace(DETACH, pid)
    if more >= 0:
        sys.exit(f"{pid} has several filters")
    with open(path, "wb") as file:
        file.write(program.raw)


main()
