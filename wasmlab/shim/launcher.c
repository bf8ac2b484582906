/* containerd-shim-wasm-v1, the fast way: `start` and `delete` ask the node's zygote and print its answer. containerd waits
 * for this program at every pod, and an interpreter takes 8 ms to start. Everything else (-v, -info, usage errors, no
 * zygote yet) is left to the Python program beside it, `wasmlab-shim`, which speaks the same protocol: see entry.py. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define PROTOCOL "1"
#define DEFAULT_DIR "/run/wasmlab/shim"
#define MESSAGE_BYTES 65536

static unsigned char params[MESSAGE_BYTES];
static size_t params_size;
static char message[MESSAGE_BYTES];
static size_t message_size;

/* What was read from stdin would be lost to the other program: give it back in a pipe. */
static void restore_stdin(void) {
    int ends[2];
    if (!params_size || pipe(ends) || write(ends[1], params, params_size) < 0) return;
    dup2(ends[0], 0);
    close(ends[0]);
    close(ends[1]);
}

static int fall_back(char **argv) {
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
    const char *slash = strrchr(argv[0], '/');
    if (length > 0) {
        path[length] = 0;
        *strrchr(path, '/') = 0;
        strcat(path, "/wasmlab-shim");
        setenv("WASMLAB_SHIM_PROGRAM", slash ? slash + 1 : argv[0], 1);
        restore_stdin();
        execv(path, argv);
    }
    fprintf(stderr, "%s: cannot run wasmlab-shim, which belongs beside it: %s\n", argv[0], strerror(errno));
    return 1;
}

static int is_valued(const char *name, size_t length) {
    static const char *const names[] = {"namespace", "address", "publish-binary", "id", "bundle", "socket", "debug-socket"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == length && !strncmp(name, names[i], length)) return 1;
    return 0;
}

static int add(const char *text) {
    size_t length = strlen(text) + 1;
    if (message_size + length > sizeof message) return 0;
    memcpy(message + message_size, text, length);
    message_size += length;
    return 1;
}

static void read_params(void) {
    ssize_t got;
    while (params_size < sizeof params && (got = read(0, params + params_size, sizeof params - params_size)) > 0)
        params_size += got;
}

/* "3" if stdin holds the BootstrapParams of containerd 2.3 and later (they have the fields 4 and 5), else "2". */
static const char *wanted_version(void) {
    size_t at = 0;
    while (at < params_size) {
        unsigned tag = params[at++], field = tag >> 3, wire = tag & 7;
        if ((field == 4 || field == 5) && (wire == 2 || wire == 0)) return "3";
        if (wire == 2) {
            size_t length = 0;
            for (unsigned shift = 0; at < params_size && shift < 35; shift += 7) {
                unsigned byte = params[at++];
                length |= (size_t)(byte & 127) << shift;
                if (byte < 128) break;
            }
            at += length;
        } else if (wire == 0) {
            while (at < params_size && params[at++] >= 128) {}
        } else {
            return "2";
        }
    }
    return "2";
}

static int put(const char *data, size_t size, int fd) {
    while (size) {
        ssize_t done = write(fd, data, size);
        if (done < 0) return 0;
        data += done;
        size -= done;
    }
    return 1;
}

int main(int argc, char **argv) {
    const char *id = "", *namespace = "", *address = "", *bundle = "", *action = "";
    for (int at = 1; at < argc; at++) {
        const char *word = argv[at];
        if (*word != '-') {
            action = word;
            break;
        }
        while (*word == '-') word++;
        size_t length = strcspn(word, "=");
        const char *value = word[length] ? word + length + 1 : "";
        if (!word[length] && is_valued(word, length)) value = at + 1 < argc ? argv[++at] : "";
        if (length == 2 && !strncmp(word, "id", 2)) id = value;
        else if (length == 9 && !strncmp(word, "namespace", 9)) namespace = value;
        else if (length == 7 && !strncmp(word, "address", 7)) address = value;
        else if (length == 6 && !strncmp(word, "bundle", 6)) bundle = value;
        else if (!is_valued(word, length) && !(length == 5 && !strncmp(word, "debug", 5))) return fall_back(argv);
    }
    int start = !strcmp(action, "start");
    char here[PATH_MAX];
    if (!*id || (!start && strcmp(action, "delete")) || !getcwd(here, sizeof here)) return fall_back(argv);

    const char *directory = getenv("WASMLAB_SHIM_DIR");
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    int length = snprintf(where.sun_path, sizeof where.sun_path, "%s/zygote.sock", directory && *directory ? directory : DEFAULT_DIR);
    if (length >= (int)sizeof where.sun_path) return fall_back(argv);

    const char *base = strrchr(argv[0], '/');
    base = base ? base + 1 : argv[0];
    char engine[64] = "";
    if (!strncmp(base, "containerd-shim-", 16)) {
        snprintf(engine, sizeof engine, "%s", base + 16);
        size_t size = strlen(engine);
        if (size > 3 && !strcmp(engine + size - 3, "-v1")) engine[size - 3] = 0;
        if (!strcmp(engine, "wasm")) engine[0] = 0;
    }
    const char *events = getenv("TTRPC_ADDRESS");
    int complete = add(PROTOCOL) && add(action) && add(id);
    if (start) {
        read_params();
        complete = complete && add(namespace) && add(here) && add(address) && add(events ? events : "") && add(engine) && add(wanted_version());
    } else {
        complete = complete && add(*bundle ? bundle : here);
    }
    if (!complete) return fall_back(argv);

    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 60};
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (sock < 0 || connect(sock, (struct sockaddr *)&where, sizeof where)) return fall_back(argv);
    if (!put(message, message_size - 1, sock)) return fall_back(argv);
    size_t size = 0;
    ssize_t got;
    while (size < sizeof message && (got = recv(sock, message + size, sizeof message - size, 0)) > 0) size += got;
    if (!size) return fall_back(argv);
    if (message[0] == '0') return !put(message + 1, size - 1, 1);
    put(message + 1, size - 1, 2);
    put("\n", 1, 2);
    return 1;
}
