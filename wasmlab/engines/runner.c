/* Workers of wasmtime that need no Python: see wasmtime_runner.py.
 *
 * runner CONTROL_FD ZYGOTE_PID LIBRARY STRATEGY MAX_STACK NOOP NAME ...
 *
 * One process, the template, loads the engine once and never runs a guest. At each request on CONTROL_FD it forks a
 * worker, with the zygote as its parent (CLONE_PARENT), who reaps it. A worker is told what to run, runs it, says how
 * that ended, and is gone. Guests' processes are forked from two megabytes instead of from a Python interpreter: a fork
 * copies the page of whatever is written to, and an interpreter writes to nearly every page it looks at.
 *
 * What is done here, and in which order and words, is what worker.py and engines/wasmtime.py do; tests compare them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
	FAILED = 70,
	MESSAGE_LIMIT = 8192,
	REQUEST_LIMIT = 48 * 1024,
	WORKER_FD = 3,
	MAX_FDS = 4,
	MODULES = 8,
	STACK_BYTES = 8 << 20,
	OPEN_FILES = 1024,
	TABLE_ELEMENTS = 10000000,
};

/* -- wasmtime's C API, as far as it is used (crates/c-api/include) ------------------------------------------------- */

typedef struct { size_t size; char *data; } bytes_t;
typedef struct { size_t size; void **data; } types_t;
typedef struct { uint64_t store; void *inner; } func_t;
typedef struct { uint64_t store; size_t inner; } instance_t;
typedef struct { uint8_t kind; union { func_t func; uint64_t space[4]; } of; } extern_t;
typedef struct { uint8_t kind; union { int32_t i32; uint64_t space[3]; } of; } val_t;
typedef void *(*callback_t)(void *, void *, const val_t *, size_t, val_t *, size_t);
typedef ssize_t (*output_t)(void *, const unsigned char *, size_t);
enum { EXTERN_FUNC = 0, EXTERN_MEMORY = 3, KIND_I32 = 0 };

#define API(F) \
	F(void *, wasm_config_new, (void)) \
	F(void, wasmtime_config_max_wasm_stack_set, (void *, size_t)) \
	F(void, wasmtime_config_strategy_set, (void *, uint8_t)) \
	F(void *, wasm_engine_new_with_config, (void *)) \
	F(void *, wasmtime_linker_new, (void *)) \
	F(void *, wasmtime_linker_define_wasi, (void *)) \
	F(void, wasmtime_linker_allow_shadowing, (void *, bool)) \
	F(void *, wasmtime_linker_define_func, (void *, const char *, size_t, const char *, size_t, void *, callback_t, \
		void *, void (*)(void *))) \
	F(void *, wasmtime_linker_instantiate, (void *, void *, void *, instance_t *, void **)) \
	F(void *, wasmtime_module_deserialize_file, (void *, const char *, void **)) \
	F(void *, wasmtime_store_new, (void *, void *, void (*)(void *))) \
	F(void, wasmtime_store_delete, (void *)) \
	F(void *, wasmtime_store_context, (void *)) \
	F(void, wasmtime_store_limiter, (void *, int64_t, int64_t, int64_t, int64_t, int64_t)) \
	F(void *, wasmtime_context_set_wasi, (void *, void *)) \
	F(void *, wasi_config_new, (void)) \
	F(bool, wasi_config_set_argv, (void *, size_t, const char **)) \
	F(bool, wasi_config_set_env, (void *, size_t, const char **, const char **)) \
	F(bool, wasi_config_preopen_dir, (void *, const char *, const char *, bool)) \
	F(void, wasi_config_inherit_stdin, (void *)) \
	F(void, wasi_config_inherit_stdout, (void *)) \
	F(void, wasi_config_inherit_stderr, (void *)) \
	F(void, wasi_config_set_stdout_custom, (void *, output_t, void *, void (*)(void *))) \
	F(void, wasi_config_set_stderr_custom, (void *, output_t, void *, void (*)(void *))) \
	F(bool, wasmtime_instance_export_get, (void *, const instance_t *, const char *, size_t, extern_t *)) \
	F(void *, wasmtime_func_call, (void *, const func_t *, const val_t *, size_t, val_t *, size_t, void **)) \
	F(size_t, wasmtime_memory_data_size, (void *, const void *)) \
	F(void, wasm_trap_message, (void *, bytes_t *)) \
	F(bool, wasmtime_trap_code, (void *, uint8_t *)) \
	F(void *, wasmtime_trap_new, (const char *, size_t)) \
	F(void, wasmtime_error_message, (void *, bytes_t *)) \
	F(void *, wasm_functype_new, (types_t *, types_t *)) \
	F(void, wasm_valtype_vec_new, (types_t *, size_t, void **)) \
	F(void, wasm_valtype_vec_new_empty, (types_t *)) \
	F(void *, wasm_valtype_new, (uint8_t))

#define DECLARE(type, name, parameters) static type (*name) parameters;
API(DECLARE)

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *format, ...) {
	va_list rest;
	va_start(rest, format);
	dprintf(2, "runner %d: ", getpid());
	vdprintf(2, format, rest);
	dprintf(2, "\n");
	_exit(FAILED);
}

static void load(const char *path) {
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		fail("%s", dlerror());
#define RESOLVE(type, name, parameters) \
	if ((*(void **)&name = dlsym(library, #name)) == NULL) \
		fail("%s", dlerror());
	API(RESOLVE)
}

/* -- how a run ended ------------------------------------------------------------------------------------------------ */

typedef struct {
	int64_t began[4], ended[4];
	const char *phase[4];
	int count;
	int64_t at;
	int exit_code;      /* -1: it did not end by itself */
	const char *trap;   /* NULL if it did */
	int trap_code;      /* wasmtime's own number, if `trap` is to be told by it; else -1 */
	char message[MESSAGE_LIMIT + 1];
} result_t;

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void lap(result_t *r, const char *phase) {
	int64_t at = now();
	r->phase[r->count] = phase;
	r->began[r->count] = r->at;
	r->ended[r->count++] = at;
	r->at = at;
}

static void ended(result_t *r, const char *trap, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void ended(result_t *r, const char *trap, const char *format, ...) {
	va_list rest;
	va_start(rest, format);
	r->trap = trap;
	vsnprintf(r->message, sizeof r->message, format, rest);
	va_end(rest);
}

/* `text` with each run of white space made one space, as Python's " ".join(text.split()) does. */
static char *squeezed(bytes_t text) {
	char *out = malloc(text.size + 1), *at = out;
	for (size_t i = 0; i < text.size; i++) {
		if (strchr(" \t\n\r\f\v", text.data[i]) == NULL)
			*at++ = text.data[i];
		else if (at > out && at[-1] != ' ')
			*at++ = ' ';
	}
	while (at > out && at[-1] == ' ')
		at--;
	*at = 0;
	return out;
}

static char *said(void *error, bool squeeze) {
	bytes_t text;
	wasmtime_error_message(error, &text);
	return squeeze ? squeezed(text) : strndup(text.data, text.size);
}

/* The last line of a trap's message that says "wasm trap:", else its first line; the rest is a backtrace. */
static void trapped(result_t *r, void *trap, uint64_t used, int64_t limit) {
	bytes_t text;
	uint8_t code;
	const char *reason = NULL, *first = NULL;
	wasm_trap_message(trap, &text);
	r->trap_code = wasmtime_trap_code(trap, &code) ? code : -1;
	char *copy = strndup(text.data, text.size), *rest = copy, *line;
	while ((line = strsep(&rest, "\n")) != NULL) {
		while (*line != 0 && strchr(" \t\r", *line) != NULL)
			line++;
		for (char *end = line + strlen(line); end > line && strchr(" \t\r", end[-1]) != NULL;)
			*--end = 0;
		if (*line != 0 && first == NULL)
			first = line;
		if (strncmp(line, "wasm trap:", 10) == 0)
			reason = line;
	}
	if (reason == NULL)
		reason = first != NULL ? first : "trap";
	if (limit >= 0 && used >= 0.9 * (double)limit) {
		r->trap_code = -1;
		ended(r, "out_of_memory", "out of memory: %lu of %ld bytes were in use when the guest gave up (%s)",
			(unsigned long)used, (long)limit, reason);
	} else {
		ended(r, "trap", "%s", reason);
	}
}

static void not_instantiated(result_t *r, void *error) {
	char *text = said(error, true);
	if (strstr(text, "exceeds memory limits") != NULL)
		ended(r, "out_of_memory", "the module needs more memory to start: %s", text);
	else
		ended(r, "link", "%s", text);
}

static char *append_text(char *at, const char *text) {
	*at++ = '"';
	for (; *text != 0; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			*at++ = '\\', *at++ = (char)c;
		else if (c < 0x20)
			at += sprintf(at, "\\u%04x", c);
		else
			*at++ = (char)c;
	}
	*at++ = '"';
	return at;
}

static void tell(const result_t *r, int64_t t0, int64_t begun) {
	static char out[6 * MESSAGE_LIMIT + 4096];
	char message[MESSAGE_LIMIT + 1], *at = out;
	size_t size = strlen(r->message);
	memcpy(message, r->message, size + 1);
	if (size == MESSAGE_LIMIT) {  /* cut short: not within a character */
		while (size > 0 && (message[size - 1] & 0xc0) == 0x80)
			size--;
		message[size > 0 ? size - 1 : 0] = 0;
	}
	if (r->trap == NULL)
		at += sprintf(at, "{\"exit_code\":%d,\"trap\":null,\"message\":", r->exit_code);
	else if (r->trap_code >= 0)
		at += sprintf(at, "{\"exit_code\":null,\"trap\":%d,\"message\":", r->trap_code);
	else
		at += sprintf(at, "{\"exit_code\":null,\"trap\":\"%s\",\"message\":", r->trap);
	at = append_text(at, message);
	at += sprintf(at, ",\"spans\":[[\"spawn\",%ld,%ld]", (long)t0, (long)begun);
	for (int i = 0; i < r->count; i++)
		at += sprintf(at, ",[\"%s\",%ld,%ld]", r->phase[i], (long)r->began[i], (long)r->ended[i]);
	at += sprintf(at, "]}");
	send(WORKER_FD, out, (size_t)(at - out), MSG_NOSIGNAL);
}

/* -- a request ------------------------------------------------------------------------------------------------------ */

typedef struct { const char *host, *guest, *root, *below; bool read_only; } preopen_t;

typedef struct {
	int64_t t0, memory;  /* -1: no limit */
	int32_t oom_score_adj;  /* INT32_MIN: as it is */
	bool framed;
	const char *artifact, **argv, **names, **values, **cgroups;
	size_t argc, envc, cgroupc, preopenc;
	preopen_t *preopens;
	int in, out, err;
} request_t;

typedef struct { const char *at, *end; } reader_t;

static int64_t number(reader_t *r) {
	int64_t value;
	if (r->end - r->at < (ptrdiff_t)sizeof value)
		fail("a request is too short");
	memcpy(&value, r->at, sizeof value);
	r->at += sizeof value;
	return value;
}

static const char *text(reader_t *r) {
	const char *found = r->at, *zero = memchr(r->at, 0, (size_t)(r->end - r->at));
	if (zero == NULL)
		fail("a request is too short");
	r->at = zero + 1;
	return found;
}

static const char **texts(reader_t *r, size_t *count) {
	*count = (size_t)number(r);
	if (*count > REQUEST_LIMIT)
		fail("a request makes no sense");
	const char **found = calloc(*count + 1, sizeof *found);
	for (size_t i = 0; i < *count; i++)
		found[i] = text(r);
	return found;
}

/* As sandbox/template.py encodes it: numbers of eight bytes, texts that end with a zero, lists after their length. */
static request_t parsed(const char *data, size_t size) {
	reader_t r = {data, data + size};
	request_t q = {0};
	q.t0 = number(&r);
	q.memory = number(&r);
	int64_t score = number(&r);
	q.oom_score_adj = score < -1000 ? INT32_MIN : (int32_t)score;
	q.framed = number(&r) != 0;
	q.artifact = text(&r);
	q.argv = texts(&r, &q.argc);
	q.names = texts(&r, &q.envc);
	q.values = texts(&r, &q.envc);
	q.cgroups = texts(&r, &q.cgroupc);
	q.preopenc = (size_t)number(&r);
	if (q.preopenc > REQUEST_LIMIT)
		fail("a request makes no sense");
	q.preopens = calloc(q.preopenc + 1, sizeof *q.preopens);
	for (size_t i = 0; i < q.preopenc; i++) {
		preopen_t *one = &q.preopens[i];
		one->host = text(&r);
		one->guest = text(&r);
		one->root = text(&r);
		one->below = text(&r);
		one->read_only = number(&r) != 0;
	}
	return q;
}

static void *engine, *linker;
/* Instances map their memory from the module's file: the engine keeps that open, here as `fd`. */
static struct { char *path; void *module; int fd; } modules[MODULES];
static int module_count;

/* -- what a worker gives up (limits.py), and what a run asks for (confinement.py) ------------------------------------- */

static void lower(int which, rlim_t value) {
	struct rlimit limit;
	if (getrlimit(which, &limit) == 0) {
		rlim_t to = limit.rlim_max == RLIM_INFINITY || value < limit.rlim_max ? value : limit.rlim_max;
		limit = (struct rlimit){to, to};
		setrlimit(which, &limit);
	}
}

static int write_file(const char *path, const char *what) {
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t done = write(fd, what, strlen(what));
	int why = errno;
	close(fd);
	errno = why;
	return done < 0 ? -1 : 0;
}

static void close_from(int first, int last) {
	if (first <= last && syscall(SYS_close_range, first, last, 0) != 0)
		for (int fd = first; fd <= last && fd < 65536; fd++)
			close(fd);
}

static void confine(pid_t zygote, int keep, const char *name) {
	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != zygote)
		_exit(0);
	prctl(PR_SET_NAME, name);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (keep != WORKER_FD && dup3(keep, WORKER_FD, O_CLOEXEC) < 0)
		fail("dup3: %s", strerror(errno));
	/* Modules' files come one after the other, in ascending order. */
	int from = WORKER_FD + 1;
	for (int i = 0; i < module_count; i++)
		if (modules[i].fd >= from) {
			close_from(from, modules[i].fd - 1);
			from = modules[i].fd + 1;
		}
	close_from(from, INT_MAX);
	lower(RLIMIT_CORE, 0);
	lower(RLIMIT_NOFILE, OPEN_FILES);
	struct rlimit stack;
	if (getrlimit(RLIMIT_STACK, &stack) == 0) {
		stack.rlim_cur = stack.rlim_max == RLIM_INFINITY || STACK_BYTES < stack.rlim_max ? STACK_BYTES : stack.rlim_max;
		setrlimit(RLIMIT_STACK, &stack);
	}
	write_file("/proc/self/oom_score_adj", "800");
}

/* Open `one` by way of its root, no symbolic link in between; false if that cannot be done. */
static bool inside(preopen_t *one, result_t *r) {
	int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, fd = open(one->root, flags);
	if (fd < 0) {
		ended(r, "failed", "the worker failed: %s (%s)", strerror(errno), one->root);
		return false;
	}
	char *path = strdup(one->below), *rest = path, *part;
	while ((part = strsep(&rest, "/")) != NULL) {
		if (strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") == 0) {
			ended(r, "failed", "the worker failed: the directory is not below its root (%s)", one->host);
			return false;
		}
		int next = openat(fd, part, flags | O_NOFOLLOW), why = errno;
		close(fd);
		if (next < 0) {
			ended(r, "failed", "the worker failed: the directory cannot be opened safely: %s (%s)", strerror(why),
				one->host);
			return false;
		}
		fd = next;
	}
	char *name = malloc(64);
	snprintf(name, 64, "/proc/self/fd/%d", fd);
	one->host = name;
	return true;
}

static bool prepared(request_t *q, result_t *r) {
	for (size_t i = 0; i < q->cgroupc; i++) {
		/* One thread may move itself at once; to move a whole process the kernel waits for others (confinement.py). */
		char path[PATH_MAX];
		snprintf(path, sizeof path, "%s/tasks", q->cgroups[i]);
		if (access(path, F_OK) != 0)
			snprintf(path, sizeof path, "%s/cgroup.procs", q->cgroups[i]);
		if (write_file(path, "0") != 0) {
			ended(r, "failed", "the worker failed: %s (%s)", strerror(errno), path);
			return false;
		}
	}
	if (q->oom_score_adj != INT32_MIN) {
		char score[16];
		snprintf(score, sizeof score, "%d", q->oom_score_adj);
		write_file("/proc/self/oom_score_adj", score);
	}
	for (size_t i = 0; i < q->preopenc; i++)
		if (q->preopens[i].root[0] != 0 && !inside(&q->preopens[i], r))
			return false;
	return true;
}

/* -- running -------------------------------------------------------------------------------------------------------- */

static bool left;
static uint32_t left_with;

/* The engine's own proc_exit rejects codes of 126 and more and loses them. */
static void *proc_exit(void *env, void *caller, const val_t *arguments, size_t n, val_t *results, size_t m) {
	(void)env, (void)caller, (void)n, (void)results, (void)m;
	left = true;
	left_with = (uint32_t)arguments[0].of.i32;
	return wasmtime_trap_new("exit", 4);
}

/* One frame of engines/stdio.py: which stream, how long, the bytes. `stream` carries descriptor and stream. */
static ssize_t write_frame(void *stream, const unsigned char *data, size_t size) {
	int fd = (int)((intptr_t)stream >> 2);
	char header[5] = {(char)((intptr_t)stream & 3)};
	uint32_t length = (uint32_t)size;
	if (size == 0)
		return 0;
	memcpy(header + 1, &length, sizeof length);
	struct iovec parts[2] = {{header, sizeof header}, {(void *)data, size}}, *part = parts;
	int count = 2;
	while (count > 0) {
		ssize_t done = writev(fd, part, count);
		if (done < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		while (count > 0 && (size_t)done >= part->iov_len) {
			done -= (ssize_t)part->iov_len;
			part++, count--;
		}
		if (count > 0) {
			part->iov_base = (char *)part->iov_base + done;
			part->iov_len -= (size_t)done;
		}
	}
	return (ssize_t)size;
}

static void *module_of(const char *artifact) {
	for (int i = 0; i < module_count; i++)
		if (strcmp(modules[i].path, artifact) == 0)
			return modules[i].module;
	return NULL;
}

/* A guest's process holds no other module's file. */
static void close_others(const char *artifact) {
	for (int i = 0; i < module_count; i++)
		if (modules[i].fd >= 0 && strcmp(modules[i].path, artifact) != 0)
			close(modules[i].fd);
}

/* False with errno if there is no such file; an error of the engine is in *error. */
static bool open_module(const char *artifact, void **module, void **error) {
	int fd = open(artifact, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	close(fd);
	*error = wasmtime_module_deserialize_file(engine, artifact, module);
	return true;
}

/* Keep a module for the workers that are forked from now on. What cannot be loaded the worker will tell of. */
static void keep_module(const char *artifact) {
	void *module = NULL, *error = NULL;
	if (module_count == MODULES || module_of(artifact) != NULL)
		return;
	int fd = dup(WORKER_FD);  /* the lowest that is free: it will be the file's */
	close(fd);
	if (fd < 0 || !open_module(artifact, &module, &error) || error != NULL)
		return;
	modules[module_count].path = strdup(artifact);
	modules[module_count].fd = fcntl(fd, F_GETFD) < 0 ? -1 : fd;
	modules[module_count++].module = module;
}

static void *store_of(const request_t *q, result_t *r) {
	void *store = wasmtime_store_new(engine, NULL, NULL), *wasi = wasi_config_new();
	wasmtime_store_limiter(store, q->memory, TABLE_ELEMENTS, -1, -1, -1);
	wasi_config_set_argv(wasi, q->argc, q->argv);
	wasi_config_set_env(wasi, q->envc, q->names, q->values);
	wasi_config_inherit_stdin(wasi);
	if (q->framed) {
		/* Called at each write of the guest, so the order between the two streams is the guest's. */
		wasi_config_set_stdout_custom(wasi, write_frame, (void *)(intptr_t)(q->out << 2 | 1), NULL);
		wasi_config_set_stderr_custom(wasi, write_frame, (void *)(intptr_t)(q->out << 2 | 2), NULL);
	} else {
		wasi_config_inherit_stdout(wasi);
		wasi_config_inherit_stderr(wasi);
	}
	for (size_t i = 0; i < q->preopenc; i++)
		if (!wasi_config_preopen_dir(wasi, q->preopens[i].host, q->preopens[i].guest, !q->preopens[i].read_only)) {
			ended(r, "failed", "the worker failed: WasmtimeError: failed to add preopen dir");
			return NULL;
		}
	void *error = wasmtime_context_set_wasi(wasmtime_store_context(store), wasi);
	if (error != NULL) {
		ended(r, "failed", "the worker failed: WasmtimeError: %s", said(error, false));
		return NULL;
	}
	return store;
}

static void finish(result_t *r) {
	r->exit_code = (int)(left_with & 0xff);
	if (left_with > 0xff)
		ended(r, NULL, "the guest's exit code %u was reduced to %d", left_with, r->exit_code);
}

static void run(const request_t *q, result_t *r, void **store) {
	void *error = NULL, *trap = NULL, *module = module_of(q->artifact);
	instance_t instance;
	extern_t start, memory;

	left = false, left_with = 0;
	if (module == NULL && !open_module(q->artifact, &module, &error)) {
		ended(r, "failed", "the worker failed: %s (%s)", strerror(errno), q->artifact);
		return;
	}
	if (error != NULL) {
		ended(r, "invalid_module", "cannot load the compiled module: %s", said(error, false));
		return;
	}
	lap(r, "load");
	if ((*store = store_of(q, r)) == NULL)
		return;
	void *context = wasmtime_store_context(*store);
	error = wasmtime_linker_instantiate(linker, context, module, &instance, &trap);
	if (left) {
		lap(r, "instantiate");
		finish(r);
		return;
	}
	if (trap != NULL) {
		trapped(r, trap, 0, q->memory);
		return;
	}
	if (error != NULL) {
		not_instantiated(r, error);
		return;
	}
	if (!wasmtime_instance_export_get(context, &instance, "_start", 6, &start) || start.kind != EXTERN_FUNC) {
		ended(r, "link", "the module exports no function _start: it is a library, not a command");
		return;
	}
	lap(r, "instantiate");
	error = wasmtime_func_call(context, &start.of.func, NULL, 0, NULL, 0, &trap);
	lap(r, "run");
	if (left)
		finish(r);
	else if (trap != NULL) {
		uint64_t used = 0;
		if (wasmtime_instance_export_get(context, &instance, "memory", 6, &memory) && memory.kind == EXTERN_MEMORY)
			used = wasmtime_memory_data_size(context, &memory.of);
		trapped(r, trap, used, q->memory);
	} else if (error != NULL)
		ended(r, "failed", "wasmtime failed: %s", said(error, false));
	else
		r->exit_code = 0;
}

static void carry_out(request_t *q, bool rehearsal) {
	result_t r = {.exit_code = -1, .trap_code = -1};
	void *store = NULL;
	int64_t begun = r.at = now();
	if (prepared(q, &r)) {
		dup2(q->in, 0);
		if (!q->framed) {
			dup2(q->out, 1);
			dup2(q->err, 2);
		}
		if (!rehearsal) {
			close(q->in);
			if (!q->framed)
				close(q->out), close(q->err);
		}
		begun = r.at = now();
		run(q, &r, &store);
	}
	if (!rehearsal)
		tell(&r, q->t0, begun);
	else if (store != NULL)
		wasmtime_store_delete(store);
}

/* Run a module that does nothing, so that what a guest needs is there when it comes: see worker.rehearsal. */
static void rehearse(const char *noop) {
	const char *argv[] = {"noop"}, *names[] = {"A"}, *values[] = {"b"};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	request_t q = {
		.memory = -1, .oom_score_adj = INT32_MIN, .framed = true, .artifact = noop, .argc = 1, .argv = argv, .envc = 1,
		.names = names, .values = values, .in = null, .out = null, .err = null,
	};
	carry_out(&q, true);
	close(null);
}

/* -- messages ------------------------------------------------------------------------------------------------------- */

static ssize_t receive(int fd, char *data, size_t size, int *fds, int *count) {
	char control[CMSG_SPACE(MAX_FDS * sizeof(int))];
	struct iovec part = {data, size};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	ssize_t got;
	while ((got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	*count = 0;
	if (got < 0)
		return errno == ECONNRESET ? 0 : -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			*count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(c), (size_t)*count * sizeof(int));
		}
	return got;
}

static void serve(const char *noop) __attribute__((noreturn));
static void serve(const char *noop) {
	static char data[REQUEST_LIMIT];
	int fds[MAX_FDS], count;
	if (noop != NULL)
		rehearse(noop);
	send(WORKER_FD, "{\"ready\":true}", 14, MSG_NOSIGNAL);
	ssize_t size = receive(WORKER_FD, data, sizeof data, fds, &count);
	if (size < 0)
		fail("recvmsg: %s", strerror(errno));
	if (size > 0) {
		request_t q = parsed(data, (size_t)size);
		if (count < (q.framed ? 2 : 3))
			fail("a request came with %d descriptors", count);
		close_others(q.artifact);
		q.in = fds[0], q.out = fds[1], q.err = fds[count - 1];
		carry_out(&q, false);
	}
	/* No teardown: the process takes all with it. */
	_exit(0);
}

/* A fork whose parent is our parent. The thread's id, which the C library keeps, is set as fork() would. */
static pid_t fork_beside(void) {
	int *tid = NULL;
	unsigned long flags = CLONE_PARENT | SIGCHLD;
	if (prctl(PR_GET_TID_ADDRESS, &tid) == 0 && tid != NULL)
		flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
#if defined(__x86_64__)
	return (pid_t)syscall(SYS_clone, flags, NULL, NULL, tid, NULL);
#else
	return (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, tid);
#endif
}

static void make_engine(int strategy, size_t stack) {
	static const char *const wasi[] = {"wasi_snapshot_preview1", "wasi_unstable"};
	void *config = wasm_config_new();
	wasmtime_config_max_wasm_stack_set(config, stack);
	wasmtime_config_strategy_set(config, (uint8_t)strategy);
	engine = wasm_engine_new_with_config(config);
	linker = wasmtime_linker_new(engine);
	if (wasmtime_linker_define_wasi(linker) != NULL)
		fail("wasmtime does not define WASI");
	wasmtime_linker_allow_shadowing(linker, true);
	for (int i = 0; i < 2; i++) {
		types_t parameters, results;
		void *i32 = wasm_valtype_new(KIND_I32);
		wasm_valtype_vec_new(&parameters, 1, &i32);
		wasm_valtype_vec_new_empty(&results);
		void *type = wasm_functype_new(&parameters, &results);
		if (wasmtime_linker_define_func(linker, wasi[i], strlen(wasi[i]), "proc_exit", 9, type, proc_exit, NULL, NULL))
			fail("wasmtime does not take another proc_exit");
	}
}

int main(int argc, char **argv) {
	static char data[REQUEST_LIMIT];
	if (argc < 8)
		fail("%d arguments", argc);
	int control = atoi(argv[1]);
	pid_t zygote = atoi(argv[2]);
	const char *noop = argv[6], *name = argv[7];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != zygote)
		_exit(0);
	prctl(PR_SET_NAME, "wasm-template");
	signal(SIGPIPE, SIG_IGN);
	/* A worker's own socket will be there: nothing that a worker keeps may be. */
	if (control != WORKER_FD && fcntl(WORKER_FD, F_GETFD) < 0)
		dup2(control, WORKER_FD);
	/* One arena: the engine's own thread would else have another. Wasmtime waits for clocks and pipes in it. */
	mallopt(M_ARENA_MAX, 1);
	setenv("TOKIO_WORKER_THREADS", "1", 1);
	load(argv[3]);
	make_engine(atoi(argv[4]), (size_t)atol(argv[5]));
	keep_module(noop);
	if (module_count == 0)
		fail("the engine does not take %s", noop);
	send(control, "ready", 5, MSG_NOSIGNAL);
	for (;;) {
		int fds[MAX_FDS], count;
		ssize_t size = receive(control, data, sizeof data - 1, fds, &count);
		if (size <= 0)
			return 0;
		data[size] = 0;
		if (data[0] == 'M') {  /* a module that is run often */
			keep_module(data + 1);
			continue;
		}
		/* F: fork; R: fork, and rehearse */
		int32_t pid = count == 1 ? fork_beside() : -1, answer = pid < 0 ? -errno : pid;
		if (pid == 0) {
			confine(zygote, fds[0], name);
			serve(data[0] == 'R' ? noop : NULL);
		}
		for (int i = 0; i < count; i++)
			close(fds[i]);
		send(control, &answer, sizeof answer, MSG_NOSIGNAL);
	}
}
