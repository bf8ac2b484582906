/* print [LINES]: that many short lines, each flushed by itself, so each is one fd_write.
 * The way from the guest to the host and back: how much does one host call cost? */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    long lines = argc > 1 ? atol(argv[1]) : 2000;
    for (long i = 0; i < lines; i++) {
        printf("%ld squared is %lld\n", i, (long long)i * i);
        fflush(stdout);
    }
    return 0;
}
