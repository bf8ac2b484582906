/* stream [PASSES]: a[i] = b[i] + 3 c[i] over three arrays of 4 MiB, then their roles change.
 * More than the processor's inner caches hold, next to no arithmetic: memory bandwidth, and what the engine's bounds
 * checks cost of it. Integers, so that the sum is exact. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT (1u << 19)

int main(int argc, char **argv) {
    int passes = argc > 1 ? atoi(argv[1]) : 20;
    uint64_t *arrays[3];
    for (int one = 0; one < 3; one++) {
        arrays[one] = malloc(COUNT * sizeof(uint64_t));
        if (!arrays[one]) { fputs("out of memory\n", stderr); return 1; }
        for (uint32_t i = 0; i < COUNT; i++) arrays[one][i] = (uint64_t)i * (2u * (uint32_t)one + 1u);
    }
    for (int pass = 0; pass < passes; pass++) {
        uint64_t *a = arrays[pass % 3], *b = arrays[(pass + 1) % 3], *c = arrays[(pass + 2) % 3];
        for (uint32_t i = 0; i < COUNT; i++) a[i] = b[i] + 3 * c[i];
    }
    uint64_t sum = 0;
    for (int one = 0; one < 3; one++)
        for (uint32_t i = 0; i < COUNT; i++) sum = sum * 31 + arrays[one][i];
    printf("%016llx\n", (unsigned long long)sum);
    return 0;
}
