/* Preloaded into a process, lets what it writes below one folder fail from some call on, as a disk does that is full,
   becomes read-only, or lets nobody in. Paths of other folders are not touched.

   fail_from(n, error, folder): from the n-th call that writes on, calls fail with that error number; 0 lets none fail.
   calls(): how many there were since. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long first, count;
static int number;
static char below[PATH_MAX];

void fail_from(long call, int error, const char *folder) {
    first = call;
    count = 0;
    number = error;
    snprintf(below, sizeof below, "%s/", folder);
}

long calls(void) { return count; }

static int is_below(const char *path) { return below[0] && !strncmp(path, below, strlen(below)); }

static int path_is_below(const char *path) {
    char whole[2 * PATH_MAX], folder[PATH_MAX];
    if (path[0] == '/') return is_below(path);
    if (!getcwd(folder, sizeof folder)) return 0;
    snprintf(whole, sizeof whole, "%s/%s", folder, path);
    return is_below(whole);
}

static int file_is_below(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int fails(void) {
    if (__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) < first || !first) return 0;
    errno = number;
    return 1;
}

/* A full disk still takes names away; files that are open can be written to whatever becomes of their folder. */
static int entry_fails(const char *path, int removes) {
    return path_is_below(path) && !(removes && number == ENOSPC) && fails();
}
static int data_fails(int file) { return number != EACCES && file_is_below(file) && fails(); }

static int opening_fails(const char *path, int flags) {
    int writes = flags & (O_WRONLY | O_RDWR | O_CREAT);
    int exists = !access(path, F_OK);
    return writes && !(exists && number == ENOSPC) && !(flags & O_TMPFILE & ~O_DIRECTORY) && entry_fails(path, 0);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                       \
    int name(const char *path, int flags, ...) {         \
        va_list arguments;                               \
        va_start(arguments, flags);                      \
        mode_t mode = va_arg(arguments, mode_t);         \
        va_end(arguments);                               \
        if (opening_fails(path, flags)) return -1;       \
        return REAL(name)(path, flags, mode);            \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                  \
    int name(int folder, const char *path, int flags, ...) {          \
        va_list arguments;                                            \
        va_start(arguments, flags);                                   \
        mode_t mode = va_arg(arguments, mode_t);                      \
        va_end(arguments);                                            \
        if (folder == AT_FDCWD && opening_fails(path, flags)) return -1; \
        return REAL(name)(folder, path, flags, mode);                 \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                       \
    FILE *name(const char *path, const char *mode) {                                      \
        if (strpbrk(mode, "wa+") && opening_fails(path, O_CREAT | O_WRONLY)) return NULL; \
        return REAL(name)(path, mode);                                                    \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int file, const void *data, size_t size) { return data_fails(file) ? -1 : REAL(write)(file, data, size); }
ssize_t writev(int file, const struct iovec *parts, int n) {
    return data_fails(file) ? -1 : REAL(writev)(file, parts, n);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    return data_fails(file) ? -1 : REAL(pwrite64)(file, data, size, at);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size);
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    return data_fails(to) ? -1 : REAL(sendfile64)(to, from, at, size);
}
int fsync(int file) { return data_fails(file) ? -1 : REAL(fsync)(file); }
int mkdir(const char *path, mode_t mode) { return entry_fails(path, 0) ? -1 : REAL(mkdir)(path, mode); }
int rename(const char *from, const char *to) { return entry_fails(to, 0) ? -1 : REAL(rename)(from, to); }
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    return entry_fails(to, 0) ? -1 : REAL(renameat2)(from_folder, from, to_folder, to, flags);
}
int unlink(const char *path) { return entry_fails(path, 1) ? -1 : REAL(unlink)(path); }
int rmdir(const char *path) { return entry_fails(path, 1) ? -1 : REAL(rmdir)(path); }
int unlinkat(int folder, const char *path, int flags) {
    return file_is_below(folder) && number != ENOSPC && fails() ? -1 : REAL(unlinkat)(folder, path, flags);
}
