/* serve [PORT [NAME]]: an HTTP server on sockets of WASIX, one connection after the other. `/` answers with NAME and the
 * number of the request, `/healthz` with ok, `/exit/N` with bye, and then the program ends with code N. Each request is
 * a line on stdout. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wasi/api.h>

#include "wasix.h"

/* A peer that says nothing for so long is hung up on: the next one waits. */
#define PATIENCE_NS 5000000000u

static char request[4096], text[256], answer[512];

static const char *why(int32_t error) {
    switch (error) {
    case __WASI_ERRNO_ADDRINUSE: return "another program has it (address in use)";
    case __WASI_ERRNO_ACCES: case __WASI_ERRNO_PERM: return "it was not given to this program (permission denied)";
    case __WASI_ERRNO_NOTSUP: return "this program was given no network (not supported)";
    }
    return strerror(error);
}

static int32_t listen_on(int port, int32_t *listener) {
    wasix_address any = {.family = WASIX_INET4, .port = {(uint8_t)port, (uint8_t)(port >> 8)}};
    int32_t error = sock_open(WASIX_INET4, WASIX_STREAM, WASIX_TCP, listener);
    if (!error) error = sock_bind(*listener, &any);
    return error ? error : sock_listen(*listener, 128);
}

/* Some hosts end an accept that takes long, and a peer may be gone before it is accepted. */
static int32_t accept_one(int32_t listener, int32_t *peer) {
    wasix_address from;
    int32_t error;
    do error = sock_accept(listener, 0, peer, &from);
    while (error == __WASI_ERRNO_TIMEDOUT || error == __WASI_ERRNO_AGAIN || error == __WASI_ERRNO_CONNABORTED);
    return error;
}

/* Whether there was a whole head of a request. */
static int read_head(int32_t peer) {
    wasix_time patience = {1, PATIENCE_NS};
    sock_set_opt_time(peer, WASIX_RECV_TIMEOUT, &patience);
    uint32_t size = 0, got;
    uint16_t flags;
    while (size < sizeof request - 1) {
        wasix_piece room = {request + size, sizeof request - 1 - size};
        if (sock_recv(peer, &room, 1, 0, &got, &flags) || !got) return 0;
        size += got;
        request[size] = 0;
        if (strstr(request, "\r\n\r\n")) return 1;
    }
    return 0;
}

static void send_all(int32_t peer, char *at, uint32_t size) {
    for (uint32_t sent; size; size -= sent, at += sent) {
        wasix_piece piece = {at, size};
        if (sock_send(peer, &piece, 1, 0, &sent) || !sent) return;
    }
}

/* Answers; returns the code to end with, or -1. */
static int serve(int32_t peer, const char *name, long number) {
    const char *status = "200 OK";
    int code = -1;
    char *path = request + 4, *end = strncmp(request, "GET ", 4) ? NULL : strpbrk(path, " \r");
    if (!end) {
        status = "405 Method Not Allowed";
        path = "?";
        snprintf(text, sizeof text, "GET only\n");
    } else {
        *end = 0;
        if (!strcmp(path, "/")) snprintf(text, sizeof text, "%s says hello, request %ld\n", name, number);
        else if (!strcmp(path, "/healthz")) snprintf(text, sizeof text, "ok\n");
        else if (!strncmp(path, "/exit/", 6)) {
            code = atoi(path + 6) & 255;
            snprintf(text, sizeof text, "bye\n");
        } else {
            status = "404 Not Found";
            snprintf(text, sizeof text, "nothing at %.200s\n", path);
        }
    }
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                        status, strlen(text), text);
    printf("%.100s %.3s\n", path, status);
    fflush(stdout);
    send_all(peer, answer, (uint32_t)size);
    return code;
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 8080, code = -1;
    const char *name = argc > 2 ? argv[2] : "serve";
    int32_t listener, peer, error = listen_on(port, &listener);
    if (error) {
        fprintf(stderr, "cannot listen on port %d: %s\n", port, why(error));
        return 1;
    }
    printf("listening on port %d\n", port);
    fflush(stdout);
    for (long number = 1; code < 0; number++) {
        error = accept_one(listener, &peer);
        if (error) {
            fprintf(stderr, "cannot accept a connection: %s\n", why(error));
            return 1;
        }
        if (read_head(peer)) code = serve(peer, name, number);
        close(peer);
    }
    return code;
}
