// The functions that the executable puts in front of the C library's, and its own for modules. Included by the build
// scripts of the crates whose executables load modules.
[
    "__cxa_thread_atexit_impl",
    "pthread_create",
    "pthread_key_create",
    "pthread_key_delete",
    "exit",
    "sigaction",
    "signal",
    "socket",
    "socketpair",
    "accept4",
    "epoll_create1",
    "eventfd",
    "timerfd_create",
    "pipe2",
    "open64",
    "openat64",
    "close",
    "wharf_module_heap_v1",
]
