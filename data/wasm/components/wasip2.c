/* WASI preview 1, as much of it as the kernels use, on top of WASI 0.2: linked with a kernel it makes a core module
 * that imports interfaces of components only (wrapped by command.wat).
 *
 * The C library calls preview 1 through functions named __imported_wasi_snapshot_preview1_*. They are defined here, so
 * the linker takes these and imports nothing. Arguments and results cross by the canonical ABI.
 *
 * References: WASI 0.2.0 (wasi:cli, wasi:io), component-model/design/mvp/CanonicalABI.md.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))
#define PREVIEW1(name) __imported_wasi_snapshot_preview1_##name

enum { SUCCESS = 0, BADF = 8, IO = 29, SPIPE = 70 };
/* The most that one blocking-write-and-flush takes. */
#define PIECE 4096u

typedef struct { const uint8_t *at; uint32_t size; } Bytes;
typedef struct { const Bytes *at; uint32_t count; } List;

IMPORT("wasi:cli/environment@0.2.0", "get-arguments") void get_arguments(List *);
IMPORT("wasi:cli/exit@0.2.0", "exit") _Noreturn void exit_with(int32_t failed);
IMPORT("wasi:cli/stdout@0.2.0", "get-stdout") int32_t get_stdout(void);
IMPORT("wasi:cli/stderr@0.2.0", "get-stderr") int32_t get_stderr(void);
/* The result: a byte that is 0 for success, then what went wrong. */
IMPORT("wasi:io/streams@0.2.0", "[method]output-stream.blocking-write-and-flush")
void write_and_flush(int32_t stream, const uint8_t *bytes, uint32_t size, uint8_t result[12]);

/* The host puts what it returns into memory that it gets here. */
EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size) {
    (void)old_size, (void)alignment; /* malloc aligns for everything that the canonical ABI passes */
    void *got = realloc(old, size);
    if (!got && size) __builtin_trap();
    return got;
}

int32_t PREVIEW1(fd_write)(int32_t fd, int32_t pieces, int32_t count, int32_t written) {
    static int32_t streams[3] = {-1, -1, -1};
    if (fd != 1 && fd != 2) return BADF;
    if (streams[fd] < 0) streams[fd] = fd == 1 ? get_stdout() : get_stderr();
    const Bytes *piece = (const Bytes *)pieces;
    uint32_t total = 0;
    for (int32_t i = 0; i < count; i++)
        for (uint32_t at = 0; at < piece[i].size;) {
            uint32_t size = piece[i].size - at < PIECE ? piece[i].size - at : PIECE;
            uint8_t result[12] = {0};
            write_and_flush(streams[fd], piece[i].at + at, size, result);
            if (result[0]) return IO;
            at += size;
            total += size;
        }
    *(uint32_t *)written = total;
    return SUCCESS;
}

static const List *arguments(void) {
    static List list;
    static int known;
    if (!known++) get_arguments(&list);
    return &list;
}

int32_t PREVIEW1(args_sizes_get)(int32_t count, int32_t bytes) {
    const List *list = arguments();
    uint32_t total = 0;
    for (uint32_t i = 0; i < list->count; i++) total += list->at[i].size + 1;
    *(uint32_t *)count = list->count;
    *(uint32_t *)bytes = total;
    return SUCCESS;
}

int32_t PREVIEW1(args_get)(int32_t pointers, int32_t buffer) {
    const List *list = arguments();
    uint8_t **argv = (uint8_t **)pointers, *at = (uint8_t *)buffer;
    for (uint32_t i = 0; i < list->count; i++) {
        argv[i] = at;
        memcpy(at, list->at[i].at, list->at[i].size);
        at += list->at[i].size;
        *at++ = 0;
    }
    return SUCCESS;
}

/* A character device that cannot seek, with every right: stdout as the C library expects it. */
int32_t PREVIEW1(fd_fdstat_get)(int32_t fd, int32_t stat) {
    if (fd < 0 || fd > 2) return BADF;
    memset((void *)stat, 0, 24);
    *(uint8_t *)stat = 2;
    *(uint64_t *)(stat + 8) = 1u << 6; /* fd_write */
    return SUCCESS;
}

int32_t PREVIEW1(fd_seek)(int32_t fd, int64_t offset, int32_t whence, int32_t at) {
    (void)fd, (void)offset, (void)whence, (void)at;
    return SPIPE;
}

int32_t PREVIEW1(fd_close)(int32_t fd) { return fd < 0 || fd > 2 ? BADF : SUCCESS; }

/* The part of the C library that is written in Zig calls it by another name. */
int32_t zig_fd_close(int32_t fd) __asm__("fd_close|wasi_snapshot_preview1");
int32_t zig_fd_close(int32_t fd) { return PREVIEW1(fd_close)(fd); }

/* A component ends with success or failure; there is no number between them in WASI 0.2.0. */
_Noreturn void PREVIEW1(proc_exit)(int32_t code) { exit_with(code != 0); }

void _start(void);

EXPORT("wasi:cli/run@0.2.0#run") int32_t run(void) {
    _start(); /* returns if main returned 0, else it ends in proc_exit */
    return 0;
}
