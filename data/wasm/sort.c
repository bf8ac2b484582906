/* sort [COUNT]: quicksort by a comparison function chosen at run time, then 8 different comparisons in turn.
 * Each comparison is a call_indirect: table lookup, signature check, call. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int (*Order)(uint32_t, uint32_t);

static int up(uint32_t a, uint32_t b) { return (a > b) - (a < b); }
static int down(uint32_t a, uint32_t b) { return up(b, a); }
static int low_byte(uint32_t a, uint32_t b) { return up(a & 255, b & 255) ? up(a & 255, b & 255) : up(a, b); }
static int high_half(uint32_t a, uint32_t b) { return up(a >> 16, b >> 16) ? up(a >> 16, b >> 16) : up(a, b); }
static int scrambled(uint32_t a, uint32_t b) { return up(a * 2654435761u, b * 2654435761u); }
static int odd_first(uint32_t a, uint32_t b) { return (a & 1) != (b & 1) ? (b & 1 ? 1 : -1) : up(a, b); }
static int bits_set(uint32_t a, uint32_t b) {
    int d = __builtin_popcount(a) - __builtin_popcount(b);
    return d ? d : up(a, b);
}
static int rotated(uint32_t a, uint32_t b) { return up(a << 7 | a >> 25, b << 7 | b >> 25); }

static Order const orders[8] = {up, scrambled, low_byte, down, high_half, odd_first, bits_set, rotated};

static void quicksort(uint32_t *v, long low, long high, Order order) {
    while (low < high) {
        uint32_t pivot = v[low + (high - low) / 2];
        long i = low, j = high;
        while (i <= j) {
            while (order(v[i], pivot) < 0) i++;
            while (order(v[j], pivot) > 0) j--;
            if (i <= j) { uint32_t t = v[i]; v[i++] = v[j]; v[j--] = t; }
        }
        /* Recurse into the smaller half, so that the stack stays logarithmic. */
        if (j - low < high - i) { quicksort(v, low, j, order); low = i; }
        else { quicksort(v, i, high, order); high = j; }
    }
}

int main(int argc, char **argv) {
    long count = argc > 1 ? atol(argv[1]) : 10000;
    uint32_t *values = malloc((size_t)count * sizeof *values);
    if (count < 1 || !values) { fputs("no room\n", stderr); return 1; }
    uint32_t x = 12345;
    for (long i = 0; i < count; i++) values[i] = x = x * 1664525u + 1013904223u;
    uint64_t checksum = 0;
    for (int turn = 0; turn < 8; turn++) {
        quicksort(values, 0, count - 1, orders[turn]);
        for (long i = 0; i < count; i++) {
            if (i && orders[turn](values[i - 1], values[i]) > 0) { printf("not sorted, turn %d\n", turn); return 1; }
            checksum = checksum * 6364136223846793005ull + values[i];
        }
    }
    printf("%016llx\n", (unsigned long long)checksum);
    return 0;
}
