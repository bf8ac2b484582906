/* The program of the article's second path: a C program that says one line. */
#include <stdio.h>

int main(void) {
    printf("Hello from WebAssembly!\n");
    return 0;
}
