/* churn [ROUNDS]: allocates, links, unlinks and frees list nodes of mixed sizes in a scattered order.
 * The allocator and pointer chasing: loads and stores with bounds checks, little arithmetic, growing memory. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define SLOTS 4096

typedef struct Node { struct Node *next; uint32_t size, stamp; unsigned char load[]; } Node;

static Node *slots[SLOTS];
static uint32_t seed = 2463534242u;

static uint32_t next_random(void) {
    seed ^= seed << 13; seed ^= seed >> 17; seed ^= seed << 5;
    return seed;
}

int main(int argc, char **argv) {
    long rounds = argc > 1 ? atol(argv[1]) : 200000;
    uint64_t checksum = 0;
    for (long round = 0; round < rounds; round++) {
        Node **slot = &slots[next_random() % SLOTS];
        uint32_t dice = next_random();
        if (*slot && dice % 3 == 0) {
            Node *gone = *slot;
            *slot = gone->next;
            checksum = checksum * 1099511628211ull ^ (gone->stamp + gone->load[gone->size - 1]);
            free(gone);
        } else {
            uint32_t size = 8 + (dice >> 8) % 248;
            Node *fresh = malloc(sizeof *fresh + size);
            if (!fresh) { fputs("out of memory\n", stderr); return 1; }
            *fresh = (Node){.next = *slot, .size = size, .stamp = (uint32_t)round};
            for (uint32_t i = 0; i < size; i += 16) fresh->load[i] = (unsigned char)dice;
            fresh->load[size - 1] = (unsigned char)round;
            *slot = fresh;
        }
    }
    size_t left = 0;
    for (int i = 0; i < SLOTS; i++)
        for (Node *node = slots[i]; node; node = node->next) { left++; checksum = checksum * 31 + node->stamp; }
    printf("%zu nodes left, checksum %016llx\n", left, (unsigned long long)checksum);
    return 0;
}
