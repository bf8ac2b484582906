/* recurse [N]: Ackermann's function A(3, N), which does nothing but call itself, thousands of frames deep.
 * Direct calls: the prologue, the check of the stack's limit, the return. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t calls;
static uint32_t deepest;

static uint32_t ackermann(uint32_t m, uint32_t n, uint32_t depth) {
    calls++;
    if (depth > deepest) deepest = depth;
    if (m == 0) return n + 1;
    if (n == 0) return ackermann(m - 1, 1, depth + 1);
    return ackermann(m - 1, ackermann(m, n - 1, depth + 1), depth + 1);
}

int main(int argc, char **argv) {
    uint32_t n = argc > 1 ? (uint32_t)atoi(argv[1]) : 8;
    uint32_t value = ackermann(3, n, 1);
    printf("A(3, %u) = %u, %llu calls, %u deep\n", n, value, (unsigned long long)calls, deepest);
    return 0;
}
