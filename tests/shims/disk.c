/* A disk that fails on command, for one process: preloaded into it (LD_PRELOAD, Linux, glibc).
 *
 * For files below $SETGATE_DISK_DIR, what the file $SETGATE_DISK_CONTROL says is done in place of the call:
 *
 *   write=ENOSPC   every write, truncation and creation fails with this error (or EIO, EROFS)
 *   open=EROFS     opening for writing fails
 *   sync=EIO       fsync and fdatasync fail; what was written stays in memory
 *   only=NAME      for the file of this name only
 *
 * The control file is read at each call, so a change counts at once. Files that end in `-shm` are left alone: they are
 * memory that two connections share. Calls of the kernel are made directly, so that nothing here meets itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX], control[PATH_MAX];
static int active;

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("SETGATE_DISK_DIR"), *file = getenv("SETGATE_DISK_CONTROL");
    /* A child has a disk of its own. */
    unsetenv("LD_PRELOAD");
    if (!dir || !file) return;
    snprintf(folder, sizeof folder, "%s", dir);
    snprintf(control, sizeof control, "%s", file);
    active = 1;
}

/* The value of a word `name=value` of the control file; 0 where there is none. */
static int says(const char *name, char *value, size_t size) {
    if (!active) return 0;
    char text[512];
    int fd = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    long length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length <= 0) return 0;
    text[length] = 0;
    size_t named = strlen(name);
    for (char *rest = text, *word; (word = strtok_r(rest, " \n", &rest));)
        if (strncmp(word, name, named) == 0 && word[named] == '=') {
            snprintf(value, size, "%s", word + named + 1);
            return 1;
        }
    return 0;
}

/* The error that the call `name` is to fail with on this path; 0: none. */
static int fault(const char *name, const char *path) {
    char value[64], only[64];
    size_t length = strlen(folder), whole = strlen(path);
    if (!active || strncmp(path, folder, length) != 0 || path[length] != '/') return 0;
    if (whole > 4 && strcmp(path + whole - 4, "-shm") == 0) return 0;
    if (!says(name, value, sizeof value)) return 0;
    if (says("only", only, sizeof only) && strcmp(strrchr(path, '/') + 1, only) != 0) return 0;
    if (strcmp(value, "ENOSPC") == 0) return ENOSPC;
    if (strcmp(value, "EROFS") == 0) return EROFS;
    return EIO;
}

static int fault_of(const char *name, int fd) {
    char link[64], path[PATH_MAX];
    if (!active) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return fault(name, path);
}

#define FAIL_WITH(number)      \
    do {                       \
        int is = (number);     \
        if (is) {              \
            errno = is;        \
            return -1;         \
        }                      \
    } while (0)

#define MODE_OF(flags, mode)                        \
    mode_t mode = 0;                                \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {        \
        va_list more;                               \
        va_start(more, flags);                      \
        mode = (mode_t)va_arg(more, int);           \
        va_end(more);                               \
    }

static int opened(int at, const char *path, int flags, mode_t mode) {
    if ((flags & O_ACCMODE) != O_RDONLY) {
        FAIL_WITH(fault("open", path));
        if ((flags & O_CREAT) && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0) FAIL_WITH(fault("write", path));
    }
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

int open(const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(at, path, flags, mode); }

ssize_t write(int fd, const void *bytes, size_t length) {
    FAIL_WITH(fault_of("write", fd));
    return syscall(SYS_write, fd, bytes, length);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    FAIL_WITH(fault_of("write", fd));
    return syscall(SYS_pwrite64, fd, bytes, length, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return pwrite(fd, bytes, length, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    FAIL_WITH(fault_of("write", fd));
    return syscall(SYS_writev, fd, parts, count);
}
int ftruncate(int fd, off_t size) {
    FAIL_WITH(fault_of("write", fd));
    return (int)syscall(SYS_ftruncate, fd, size);
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int fsync(int fd) {
    FAIL_WITH(fault_of("sync", fd));
    return (int)syscall(SYS_fsync, fd);
}
int fdatasync(int fd) {
    FAIL_WITH(fault_of("sync", fd));
    return (int)syscall(SYS_fdatasync, fd);
}
