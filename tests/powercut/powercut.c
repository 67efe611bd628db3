/* A disk that loses what was not synced, for one process: preloaded into it (LD_PRELOAD, Linux, glibc).
 *
 * Every write, truncation, creation, renaming and removal below $SETGATE_POWERCUT_DIR is carried out and remembered
 * with the bytes that were there before, until the file (for names: the folder) is synced. A thread waits at the named
 * pipe $SETGATE_POWERCUT_PIPE. On a byte it lets nothing more be written, undoes a part of what it remembers, drawn
 * from $SETGATE_POWERCUT_SEED, writes what it did to $SETGATE_POWERCUT_REPORT and ends the process with SIGKILL.
 *
 * What survives is what a disk may leave: each sector of 512 bytes holds what some write since the last sync left in
 * it, or what was synced; names change in the order they were changed in. With SETGATE_POWERCUT_NO_FSYNC=1 a sync is
 * answered and not done: nothing is ever durable, as on a disk that lies. Files that end in `-shm` are memory that two
 * connections share; they are removed at the cut.
 *
 * Of a thousand syncs of files, SETGATE_POWERCUT_SYNC_FAILS=N fail with EIO, once the process is under way. As with a
 * kernel that drops what it could not write: what was to be synced is read as it was written, and no later sync makes it
 * durable; only writing it anew does. At the cut it is gone.
 *
 * Calls of the kernel are made directly, so that nothing here meets itself. A file is known by device and inode and
 * held open, so no number is used twice.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SECTOR = 512, PIECE = 1 << 20 };

/* One write (or truncation) not yet synced. `kept` of the `length` bytes at `at` were there before; the rest lay
 * behind the end, at `size`. */
struct write_op {
    uint64_t number, at, length, kept, size;
    int truncates;
    unsigned char *old;
};

struct file {
    dev_t device;
    ino_t inode;
    int fd;
    char name[64];
    size_t count, room;
    struct write_op *ops;
    uint64_t errors; /* syncs that failed: each descriptor is told once */
    size_t lost_count, lost_room;
    struct write_op *lost; /* what a failed sync dropped, the first first */
    struct file *next;
};

/* Syncs of a process before one may fail; descriptors looked after. */
enum { SYNCS_AT_START = 20, DESCRIPTORS = 4096 };

enum name_kind { CREATED, RENAMED, REMOVED };

/* A name that changed in a folder not yet synced. `aside` is another link to what the name led to before. */
struct name_op {
    enum name_kind kind;
    dev_t device;
    ino_t folder;
    char *path, *from, *aside;
    struct name_op *next; /* the one before */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files;
static struct name_op *names; /* the last first */
static uint64_t number, random_state, aside_count;
static char folder[PATH_MAX], shm_paths[16][PATH_MAX], pipe_path[PATH_MAX], report_path[PATH_MAX];
static uint64_t syncs, sync_random, sync_fails, told[DESCRIPTORS];
static int active, no_fsync, shm_count, pipe_fd = -1;

static _Noreturn void give_up(const char *what) {
    char text[256];
    int length = snprintf(text, sizeof text, "powercut: %s: %s\n", what, strerror(errno));
    syscall(SYS_write, 2, text, (size_t)length);
    syscall(SYS_kill, getpid(), SIGABRT);
    for (;;) pause();
}

static uint64_t draw(void) { /* splitmix64 */
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t bound) { return bound ? draw() % bound : 0; }

/* Whether a path lies in the folder; `whole` gets it with its folder resolved. */
static int is_ours(const char *path, char *whole) {
    char parent[PATH_MAX];
    if (!active || !path || strlen(path) >= PATH_MAX) return 0;
    strcpy(parent, path);
    char *slash = strrchr(parent, '/');
    const char *last = slash ? strrchr(path, '/') + 1 : path;
    if (slash) *(slash == parent ? slash + 1 : slash) = 0;
    char resolved[PATH_MAX];
    if (!realpath(slash ? parent : ".", resolved)) return 0;
    if (strlen(resolved) + strlen(last) + 2 >= PATH_MAX) return 0;
    strcpy(whole, resolved);
    strcat(whole, "/");
    strcat(whole, last);
    size_t length = strlen(folder);
    return strncmp(whole, folder, length) == 0 && whole[length] == '/';
}

static void parent_of(const char *whole, struct stat *about) {
    char parent[PATH_MAX];
    strcpy(parent, whole);
    *strrchr(parent, '/') = 0;
    if (stat(parent, about) != 0) give_up("stat of a folder");
}

static void remember_name(enum name_kind kind, const char *path, const char *from, const char *aside) {
    struct stat about;
    struct name_op *op = calloc(1, sizeof *op);
    if (!op) give_up("memory");
    parent_of(path, &about);
    op->kind = kind;
    op->device = about.st_dev;
    op->folder = about.st_ino;
    op->path = strdup(path);
    op->from = from ? strdup(from) : NULL;
    op->aside = aside && *aside ? strdup(aside) : NULL;
    op->next = names;
    names = op;
}

/* Another link to what is at a path, beside the folder; empty where nothing is there. */
static void put_aside(const char *path, char *aside) {
    *aside = 0;
    if (access(path, F_OK) != 0) return;
    snprintf(aside, PATH_MAX, "%.3000s.aside-%llu-%d", folder, (unsigned long long)aside_count++, getpid());
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, aside, 0) != 0) give_up("link");
}

static struct file *known(int fd) {
    struct stat about;
    if (!active || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return NULL;
    for (struct file *file = files; file; file = file->next)
        if (file->inode == about.st_ino && file->device == about.st_dev) return file;
    return NULL;
}

static void get_to_know(int fd, const char *whole) {
    struct stat about;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode) || known(fd)) return;
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int own = (int)syscall(SYS_openat, AT_FDCWD, self, O_RDWR | O_CLOEXEC, 0);
    if (own < 0) return; /* one that may not be written to */
    struct file *file = calloc(1, sizeof *file);
    if (!file) give_up("memory");
    file->device = about.st_dev;
    file->inode = about.st_ino;
    file->fd = own;
    snprintf(file->name, sizeof file->name, "%.63s", strrchr(whole, '/') + 1);
    file->next = files;
    files = file;
}

static uint64_t size_of(struct file *file) {
    struct stat about;
    if (fstat(file->fd, &about) != 0) give_up("fstat");
    return (uint64_t)about.st_size;
}

/* Before bytes at..at+length change. */
static struct write_op *remember(struct file *file, uint64_t at, uint64_t length, int truncates) {
    if (file->count == file->room) {
        file->room = file->room ? file->room * 2 : 64;
        file->ops = realloc(file->ops, file->room * sizeof *file->ops);
        if (!file->ops) give_up("memory");
    }
    struct write_op *op = &file->ops[file->count++];
    uint64_t size = size_of(file);
    *op = (struct write_op){.number = number++, .at = at, .length = length, .size = size, .truncates = truncates};
    op->kept = at >= size ? 0 : (size - at < length ? size - at : length);
    op->old = malloc(op->kept ? op->kept : 1);
    if (!op->old) give_up("memory");
    for (uint64_t done = 0; done < op->kept;) {
        long got = syscall(SYS_pread64, file->fd, op->old + done, op->kept - done, at + done);
        if (got <= 0) give_up("read");
        done += (uint64_t)got;
    }
    return op;
}

static void forget_first(struct file *file, size_t count) {
    for (size_t i = 0; i < count; i++) free(file->ops[i].old);
    file->count -= count;
    memmove(file->ops, file->ops + count, file->count * sizeof *file->ops);
}

static void lose(struct file *file, struct write_op op) {
    if (file->lost_count == file->lost_room) {
        file->lost_room = file->lost_room ? file->lost_room * 2 : 64;
        file->lost = realloc(file->lost, file->lost_room * sizeof *file->lost);
        if (!file->lost) give_up("memory");
    }
    file->lost[file->lost_count++] = op;
}

/* A part of a write, with its own copy of the bytes that were there before. */
static struct write_op part_of(const struct write_op *op, uint64_t from, uint64_t to) {
    struct write_op part = {.number = op->number, .at = from, .length = to - from, .size = op->size};
    uint64_t skipped = from - op->at;
    part.kept = op->kept > skipped ? op->kept - skipped : 0;
    if (part.kept > part.length) part.kept = part.length;
    part.old = malloc(part.kept ? part.kept : 1);
    if (!part.old) give_up("memory");
    if (part.kept) memcpy(part.old, op->old + skipped, part.kept);
    return part;
}

/* The first `count` writes were to be synced, and that failed. */
static void lose_first(struct file *file, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!file->ops[i].truncates) lose(file, part_of(&file->ops[i], file->ops[i].at, file->ops[i].at + file->ops[i].length));
    forget_first(file, count);
}

/* Bytes were written anew, and that is durable (or is not, and is undone by itself). */
static void is_written_anew(struct file *file, uint64_t from, uint64_t to) {
    size_t before = file->lost_count;
    for (size_t i = 0; i < before; i++) {
        struct write_op op = file->lost[i];
        uint64_t end = op.at + op.length;
        if (to <= op.at || end <= from) continue;
        if (end > to) lose(file, part_of(&op, to, end));
        file->lost[i] = part_of(&op, op.at, from > op.at ? from : op.at);
        free(op.old);
    }
    size_t kept = 0;
    for (size_t i = 0; i < file->lost_count; i++) {
        if (file->lost[i].length) file->lost[kept++] = file->lost[i];
        else free(file->lost[i].old);
    }
    file->lost_count = kept;
}

static void put(struct file *file, const void *bytes, uint64_t length, uint64_t at) {
    for (uint64_t done = 0; done < length;) {
        long wrote = syscall(SYS_pwrite64, file->fd, (const char *)bytes + done, length - done, at + done);
        if (wrote <= 0) give_up("write");
        done += (uint64_t)wrote;
    }
}

/* How many of a file's writes a sector has seen, drawn once and held for all of them. */
enum way { NOTHING_STAYS, ALL_STAYS, FIRST_STAY, ANY_STAY };

static uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t saved = random_state;
    random_state = a ^ (b * 0xd6e8feb86659fd93u);
    uint64_t z = draw();
    random_state = saved;
    return z;
}

struct fate {
    enum way way;
    uint64_t salt;
    size_t first; /* FIRST_STAY: so many */
    int torn;     /* and the next one in part */
    size_t limit; /* nothing from here on stays: the first truncation that did not */
};

/* The number of writes that a sector has seen: those from it on are undone in this sector. */
static size_t seen_by(const struct file *file, const struct fate *fate, uint64_t sector) {
    size_t seen = 0;
    switch (fate->way) {
    case NOTHING_STAYS: seen = 0; break;
    case ALL_STAYS: seen = file->count; break;
    case FIRST_STAY: seen = fate->first + (fate->torn ? mix(fate->salt, sector) & 1 : 0); break;
    case ANY_STAY: seen = mix(fate->salt, sector) % (file->count + 1); break;
    }
    if (seen > fate->limit) seen = fate->limit;
    /* A truncation that stays is whole: no sector behind it shows what was before. */
    for (size_t i = fate->limit; i-- > seen;) {
        const struct write_op *op = &file->ops[i];
        if (op->truncates && sector >= op->at / SECTOR && sector * SECTOR < op->at + op->length) return i + 1;
    }
    return seen;
}

/* `last` is the write, of all files', that is torn where the first stay. */
static uint64_t undo(struct file *file, enum way way, uint64_t last) {
    static const char zeros[SECTOR];
    struct fate fate = {.way = way, .salt = draw(), .limit = file->count};
    while (fate.first < file->count && file->ops[fate.first].number < last) fate.first++;
    fate.torn = fate.first < file->count && file->ops[fate.first].number == last;
    uint64_t undone = 0, size = file->count ? file->ops[0].size : 0;
    for (size_t i = 0; i < file->count; i++)
        if (file->ops[i].truncates) {
            int stays = way == ALL_STAYS || (way == FIRST_STAY && i < fate.first) || (way == ANY_STAY && (draw() & 1));
            if (!stays) {
                fate.limit = i;
                break;
            }
        }
    for (size_t i = file->count; i-- > 0;) {
        struct write_op *op = &file->ops[i];
        int any = 0;
        for (uint64_t at = op->at; at < op->at + op->length;) {
            uint64_t sector = at / SECTOR, end = (sector + 1) * SECTOR;
            if (end > op->at + op->length) end = op->at + op->length;
            if (seen_by(file, &fate, sector) <= i) {
                uint64_t kept = op->at + op->kept, old_end = kept < end ? kept : end;
                if (at < old_end) put(file, op->old + (at - op->at), old_end - at, at);
                uint64_t from = at < old_end ? old_end : at;
                if (from < end) put(file, zeros, end - from, from);
                any = 1;
            }
            at = end;
        }
        undone += (uint64_t)any;
    }
    /* The end of the file: as it was, moved by what stays. */
    for (size_t i = 0; i < file->count; i++) {
        struct write_op *op = &file->ops[i];
        if (op->truncates) {
            if (i < fate.limit) size = op->at;
            continue;
        }
        for (uint64_t at = op->at; at < op->at + op->length;) {
            uint64_t sector = at / SECTOR, end = (sector + 1) * SECTOR;
            if (end > op->at + op->length) end = op->at + op->length;
            if (seen_by(file, &fate, sector) > i && end > size) size = end;
            at = end;
        }
    }
    if (file->count && syscall(SYS_ftruncate, file->fd, size) != 0) give_up("ftruncate");
    return undone;
}

/* What failed syncs dropped is gone, as far as nobody wrote there since. */
static uint64_t undo_lost(struct file *file) {
    for (size_t i = 0; i < file->count; i++) is_written_anew(file, file->ops[i].at, file->ops[i].at + file->ops[i].length);
    uint64_t size = size_of(file);
    for (size_t i = file->lost_count; i-- > 0;) {
        struct write_op *op = &file->lost[i];
        put(file, op->old, op->kept, op->at);
        for (uint64_t at = op->at + op->kept; at < op->at + op->length && at < size; at++) put(file, "", 1, at);
    }
    return file->lost_count;
}

static uint64_t undo_names(enum way way) {
    uint64_t count = 0, undone = 0;
    for (struct name_op *op = names; op; op = op->next) count++;
    uint64_t back = way == ALL_STAYS ? 0 : way == NOTHING_STAYS ? count : below(count + 1);
    for (struct name_op *op = names; op; op = op->next, undone++) {
        int backwards = undone < back;
        if (backwards && op->kind == CREATED) syscall(SYS_unlinkat, AT_FDCWD, op->path, 0);
        if (backwards && op->kind == RENAMED) syscall(SYS_renameat2, AT_FDCWD, op->path, AT_FDCWD, op->from, 0);
        if (backwards && op->aside) syscall(SYS_renameat2, AT_FDCWD, op->aside, AT_FDCWD, op->path, 0);
        else if (op->aside) syscall(SYS_unlinkat, AT_FDCWD, op->aside, 0);
    }
    return back;
}

static void cut(void) {
    pthread_mutex_lock(&lock); /* for good */
    static const char *words[] = {"nothing", "all", "the first", "any"};
    static const enum way ways[] = {NOTHING_STAYS, ALL_STAYS, FIRST_STAY, FIRST_STAY, ANY_STAY, ANY_STAY, ANY_STAY};
    /* A disk that lies about syncs still writes in order here: what is to be seen is loss, not damage. */
    enum way way = no_fsync ? FIRST_STAY : ways[below(sizeof ways / sizeof *ways)];
    char text[4096];
    int length = 0;
    uint64_t pending = 0, undone = 0, oldest = number;
    for (struct file *file = files; file; file = file->next)
        if (file->count && file->ops[0].number < oldest) oldest = file->ops[0].number;
    uint64_t last = oldest + below(number - oldest + 1);
    for (struct file *file = files; file; file = file->next) {
        if (!file->count) continue;
        pending += file->count;
        if (length < 3500)
            length += snprintf(text + length, sizeof text - (size_t)length, "file=%s pending=%zu\n", file->name, file->count);
        undone += undo(file, way, last);
    }
    uint64_t dropped = 0;
    for (struct file *file = files; file; file = file->next) dropped += undo_lost(file);
    uint64_t renamed = undo_names(way);
    for (int i = 0; i < shm_count; i++) syscall(SYS_unlinkat, AT_FDCWD, shm_paths[i], 0);
    length += snprintf(text + length, sizeof text - (size_t)length, "pending=%llu undone=%llu names=%llu dropped=%llu stays=%s\n",
                       (unsigned long long)pending, (unsigned long long)undone, (unsigned long long)renamed,
                       (unsigned long long)dropped, words[way]);
    int out = (int)syscall(SYS_openat, AT_FDCWD, report_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0 || syscall(SYS_write, out, text, (size_t)length) != length) give_up("the report");
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static void *wait_for_cut(void *nothing) {
    char byte;
    while (syscall(SYS_read, pipe_fd, &byte, 1) != 1)
        if (errno != EINTR) give_up("the pipe");
    cut();
    return nothing;
}

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("SETGATE_POWERCUT_DIR"), *pipe = getenv("SETGATE_POWERCUT_PIPE");
    const char *report = getenv("SETGATE_POWERCUT_REPORT"), *seed = getenv("SETGATE_POWERCUT_SEED");
    const char *lies = getenv("SETGATE_POWERCUT_NO_FSYNC");
    /* A child has a power supply of its own. */
    unsetenv("LD_PRELOAD");
    if (!dir || !pipe || !report) return;
    if (!realpath(dir, folder)) give_up("SETGATE_POWERCUT_DIR");
    snprintf(pipe_path, sizeof pipe_path, "%s", pipe);
    snprintf(report_path, sizeof report_path, "%s", report);
    random_state = seed ? strtoull(seed, NULL, 10) : 0;
    const char *fails = getenv("SETGATE_POWERCUT_SYNC_FAILS");
    sync_fails = fails ? strtoull(fails, NULL, 10) : 0;
    sync_random = random_state ^ 0x5bd1e9955bd1e995u;
    no_fsync = lies && strcmp(lies, "1") == 0;
    pipe_fd = (int)syscall(SYS_openat, AT_FDCWD, pipe_path, O_RDWR | O_CLOEXEC, 0);
    if (pipe_fd < 0) give_up("SETGATE_POWERCUT_PIPE");
    unsetenv("SETGATE_POWERCUT_DIR");
    active = 1;
    pthread_t thread;
    if (pthread_create(&thread, NULL, wait_for_cut, NULL) != 0) give_up("a thread");
    pthread_detach(thread);
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    /* Relative to another folder than the current one: nobody here does so below ours. */
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    if (!writes || (at != AT_FDCWD && path[0] != '/') || !is_ours(path, whole))
        return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int was_there = access(whole, F_OK) == 0;
    int fd = (int)syscall(SYS_openat, at, path, flags & ~O_TRUNC, mode);
    int failed = errno;
    if (fd >= 0) {
        size_t length = strlen(whole);
        if (length > 4 && strcmp(whole + length - 4, "-shm") == 0) {
            int i = 0;
            while (i < shm_count && strcmp(shm_paths[i], whole) != 0) i++;
            if (i == shm_count && shm_count < 16) strcpy(shm_paths[shm_count++], whole);
        } else {
            get_to_know(fd, whole);
            if (!was_there) remember_name(CREATED, whole, NULL, NULL);
            struct file *file = known(fd);
            if (file && fd < DESCRIPTORS) told[fd] = file->errors;
            if ((flags & O_TRUNC) && file && size_of(file) > 0) remember(file, 0, size_of(file), 1);
        }
        if ((flags & O_TRUNC) && syscall(SYS_ftruncate, fd, 0) != 0) give_up("ftruncate");
    }
    pthread_mutex_unlock(&lock);
    errno = failed;
    return fd;
}

#define MODE_OF(flags, mode)                        \
    mode_t mode = 0;                                \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {        \
        va_list more;                               \
        va_start(more, flags);                      \
        mode = (mode_t)va_arg(more, int);           \
        va_end(more);                               \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* A write of any kind: `at` below 0 is where the file stands. */
static ssize_t written(int fd, const struct iovec *parts, int count, off_t at) {
    struct file *file = NULL;
    int stands = at < 0, held = 0;
    uint64_t length = 0;
    struct stat about;
    if (active && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
        pthread_mutex_lock(&lock);
        held = 1;
        file = known(fd);
    }
    if (file) {
        for (int i = 0; i < count; i++) length += parts[i].iov_len;
        off_t where = at;
        if (stands) where = fcntl(fd, F_GETFL) & O_APPEND ? (off_t)size_of(file) : lseek(fd, 0, SEEK_CUR);
        remember(file, (uint64_t)where, length, 0);
    }
    long wrote = stands ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, at, 0);
    int failed = errno;
    /* A short write is followed by another; what it remembered too much of is the same bytes. */
    if (held) pthread_mutex_unlock(&lock);
    errno = failed;
    return wrote;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    return active ? written(fd, &part, 1, -1) : syscall(SYS_write, fd, bytes, length);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    struct iovec part = {(void *)bytes, length};
    return written(fd, &part, 1, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return pwrite(fd, bytes, length, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return written(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return written(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return written(fd, parts, count, at); }

int ftruncate(int fd, off_t size) {
    pthread_mutex_lock(&lock);
    struct file *file = known(fd);
    if (file) {
        uint64_t before = size_of(file), after = (uint64_t)size;
        if (after < before) remember(file, after, before - after, 1);
        if (after > before) remember(file, before, after - before, 0);
    }
    int result = (int)syscall(SYS_ftruncate, fd, size);
    int failed = errno;
    pthread_mutex_unlock(&lock);
    errno = failed;
    return result;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

static void names_are_durable(const struct stat *about) {
    for (struct name_op **place = &names; *place;) {
        struct name_op *op = *place;
        if (op->device == about->st_dev && op->folder == about->st_ino) {
            if (op->aside) syscall(SYS_unlinkat, AT_FDCWD, op->aside, 0);
            *place = op->next;
            free(op->path), free(op->from), free(op->aside), free(op);
        } else {
            place = &op->next;
        }
    }
}

static int synced(int fd, long call) {
    struct stat about;
    if (!active || fstat(fd, &about) != 0) return (int)syscall(call, fd);
    if (no_fsync) return 0;
    pthread_mutex_lock(&lock);
    struct file *file = known(fd);
    size_t count = file ? file->count : 0;
    uint64_t last = count ? file->ops[count - 1].number : 0;
    sync_random = mix(sync_random, syncs++);
    int fails = file && syncs > SYNCS_AT_START && sync_random % 1000 < sync_fails;
    if (fails) {
        lose_first(file, count);
        file->errors++;
    }
    /* As Linux has it since 4.13: an error that another descriptor's sync met is an error here too. */
    if (file && fd < DESCRIPTORS && told[fd] != file->errors) {
        told[fd] = file->errors;
        fails = 1;
    }
    pthread_mutex_unlock(&lock);
    if (fails) {
        errno = EIO;
        return -1;
    }
    /* A cut may come while it lasts: then nothing of it counts. */
    int result = (int)syscall(call, fd);
    int failed = errno;
    pthread_mutex_lock(&lock);
    if (result == 0 && file && fd < DESCRIPTORS && told[fd] != file->errors) {
        /* Another sync failed while this one lasted. */
        told[fd] = file->errors;
        result = -1;
        failed = EIO;
    }
    if (result == 0 && S_ISDIR(about.st_mode)) names_are_durable(&about);
    if (result == 0 && count) {
        size_t durable = 0;
        for (; durable < file->count && file->ops[durable].number <= last; durable++)
            is_written_anew(file, file->ops[durable].at, file->ops[durable].at + file->ops[durable].length);
        forget_first(file, durable);
    }
    pthread_mutex_unlock(&lock);
    errno = failed;
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int rename(const char *from, const char *to) {
    char whole_from[PATH_MAX], whole_to[PATH_MAX], aside[PATH_MAX];
    if (!is_ours(from, whole_from) || !is_ours(to, whole_to))
        return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    pthread_mutex_lock(&lock);
    put_aside(whole_to, aside);
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    int failed = errno;
    if (result == 0) remember_name(RENAMED, whole_to, whole_from, aside);
    else if (*aside) syscall(SYS_unlinkat, AT_FDCWD, aside, 0);
    pthread_mutex_unlock(&lock);
    errno = failed;
    return result;
}

int link(const char *from, const char *to) {
    char whole[PATH_MAX];
    if (!is_ours(to, whole)) return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    int failed = errno;
    if (result == 0) remember_name(CREATED, whole, NULL, NULL);
    pthread_mutex_unlock(&lock);
    errno = failed;
    return result;
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    if (from_at == AT_FDCWD && to_at == AT_FDCWD && flags == 0) return link(from, to);
    return (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
}

int unlink(const char *path) {
    char whole[PATH_MAX], aside[PATH_MAX];
    size_t length = strlen(path);
    int shared = length > 4 && strcmp(path + length - 4, "-shm") == 0;
    if (shared || !is_ours(path, whole)) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_lock(&lock);
    put_aside(whole, aside);
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    int failed = errno;
    if (result == 0) remember_name(REMOVED, whole, NULL, aside);
    else if (*aside) syscall(SYS_unlinkat, AT_FDCWD, aside, 0);
    pthread_mutex_unlock(&lock);
    errno = failed;
    return result;
}
