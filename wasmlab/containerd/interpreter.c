/* PREFIX/python/bin/python of the bundle: starts the interpreter beside it, python.real, with the shared libraries in
 * ../lib. argv[0] names this program, so that Python takes it for itself, and its children start through it as well. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static char self[PATH_MAX], real[PATH_MAX + 8], libraries[PATH_MAX + 8];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = length > 0 ? strrchr(self, '/') : NULL;
    if (slash == NULL || argc < 1) {
        fprintf(stderr, "python: cannot tell where it is: is /proc mounted?\n");
        return 127;
    }
    snprintf(real, sizeof real, "%s.real", self);
    snprintf(libraries, sizeof libraries, "%.*s/../lib", (int)(slash - self), self);
    setenv("LD_LIBRARY_PATH", libraries, 1);
    argv[0] = self;
    execv(real, argv);
    perror(real);
    return 127;
}
