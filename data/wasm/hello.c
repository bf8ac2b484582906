/* The article's program: one line to stdout, one to stderr, then the arguments.
 *
 * The three lines must reach one log in this order, so nothing may wait in a buffer.
 */
#include <stdio.h>

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    fputs("hello from stdout!\n", stdout);
    fputs("hello from stderr!\n", stderr);

    /* One line, one write: the log keeps lines whole. */
    static char line[4096];
    size_t used = 0;
    const size_t room = sizeof line - 4;
    const char *piece = "Args are: [";
    for (; *piece; piece++) line[used++] = *piece;
    for (int i = 1; i < argc && used < room; i++) {
        if (i > 1) { line[used++] = ','; if (used < room) line[used++] = ' '; }
        if (used < room) line[used++] = '"';
        for (const char *c = argv[i]; *c && used < room; c++) line[used++] = *c;
        line[used++] = '"';
    }
    line[used++] = ']';
    line[used++] = '\n';
    fwrite(line, 1, used, stdout);
    return 0;
}
