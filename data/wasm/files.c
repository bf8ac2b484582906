/* files [COUNT]: in the directory /data it writes COUNT files of 4 KiB, lists them, reads each one back, renames it and
 * removes it. The host's file system through WASI: opening by path, which the engine must keep inside the directory. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char name[64], other[64];
static uint8_t block[4096];

static int fail(const char *what) {
    perror(what);
    return 1;
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 100;
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "/data/file-%05d", i);
        FILE *file = fopen(name, "wb");
        if (!file) return fail(name);
        for (size_t k = 0; k < sizeof block; k++) block[k] = (uint8_t)(i * 7 + (int)k);
        if (fwrite(block, 1, sizeof block, file) != sizeof block || fclose(file)) return fail(name);
    }
    DIR *folder = opendir("/data");
    if (!folder) return fail("/data");
    int listed = 0;
    /* Unordered, and there may be other files. */
    for (struct dirent *entry; (entry = readdir(folder));) listed += !strncmp(entry->d_name, "file-", 5);
    closedir(folder);
    uint64_t checksum = 0;
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "/data/file-%05d", i);
        FILE *file = fopen(name, "rb");
        if (!file || fread(block, 1, sizeof block, file) != sizeof block) return fail(name);
        fclose(file);
        for (size_t k = 0; k < sizeof block; k++) checksum = checksum * 1099511628211ull ^ block[k];
        snprintf(other, sizeof other, "/data/done-%05d", i);
        if (rename(name, other) || unlink(other)) return fail(other);
    }
    printf("%d files listed, checksum %016llx\n", listed, (unsigned long long)checksum);
    return 0;
}
