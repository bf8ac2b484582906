/* Sockets of WASIX, as far as a server needs them, declared by hand: the C library that the modules here are compiled
 * with knows WASI preview 1 only. Each function returns 0 or an __WASI_ERRNO_ of <wasi/api.h>. `close` closes.
 *
 * References: WASIX, wasix_32v1.
 */
#ifndef WASIX_H
#define WASIX_H

#include <stdint.h>

#define WASIX(name) __attribute__((import_module("wasix_32v1"), import_name(#name)))

enum { WASIX_INET4 = 1, WASIX_INET6 = 2 };
enum { WASIX_STREAM = 1, WASIX_TCP = 6 };
enum { WASIX_RECV_TIMEOUT = 19, WASIX_SEND_TIMEOUT = 20, WASIX_ACCEPT_TIMEOUT = 22 };

/* __wasi_addr_port_t: the port in the guest's byte order (low byte first), then 4 or 16 bytes of address. */
typedef struct { uint8_t family, padding, port[2], address[16]; } wasix_address;
/* __wasi_iovec_t */
typedef struct { void *at; uint32_t size; } wasix_piece;
/* __wasi_option_timestamp_t, in nanoseconds */
typedef struct { uint8_t some; uint64_t ns; } wasix_time;

WASIX(sock_open) int32_t sock_open(int32_t family, int32_t type, int32_t protocol, int32_t *socket);
WASIX(sock_bind) int32_t sock_bind(int32_t socket, const wasix_address *address);
WASIX(sock_listen) int32_t sock_listen(int32_t socket, int32_t backlog);
WASIX(sock_accept_v2) int32_t sock_accept(int32_t socket, int32_t flags, int32_t *peer, wasix_address *from);
WASIX(sock_recv) int32_t sock_recv(int32_t peer, const wasix_piece *pieces, int32_t count, int32_t flags, uint32_t *got,
                                   uint16_t *out_flags);
WASIX(sock_send) int32_t sock_send(int32_t peer, const wasix_piece *pieces, int32_t count, int32_t flags, uint32_t *sent);
WASIX(sock_set_opt_time) int32_t sock_set_opt_time(int32_t socket, int32_t option, const wasix_time *time);

#endif
