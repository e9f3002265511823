/* The clock of another time, for a program and all that it starts: by CLOCK_MOVED_S seconds, for files too.

       cc -shared -fPIC -o moved_clock.so moved_clock.c -ldl
       LD_PRELOAD=./moved_clock.so CLOCK_MOVED_S=-1400000000 python ...

   libfaketime leaves the times of files as they are where a program calls stat64, as Python does: a clock that
   disagrees with the disk, which is another fault than a wrong clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

static time_t moved(void) {
    static time_t by;
    static int known;
    if (!known) {
        const char *text = getenv("CLOCK_MOVED_S");
        by = text ? atol(text) : 0;
        known = 1;
    }
    return by;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* -- asking for the time ------------------------------------------------------------------------ */

int clock_gettime(clockid_t clock, struct timespec *now) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += moved();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec fine;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    if (now) *now = fine.tv_sec;
    return fine.tv_sec;
}

/* -- the times of files ------------------------------------------------------------------------- */

static int shifted(int failed, struct stat64 *file) {
    if (!failed) {
        file->st_atim.tv_sec += moved();
        file->st_mtim.tv_sec += moved();
        file->st_ctim.tv_sec += moved();
    }
    return failed;
}

int stat64(const char *restrict path, struct stat64 *restrict file) { return shifted(REAL(stat64)(path, file), file); }
int lstat64(const char *restrict path, struct stat64 *restrict file) { return shifted(REAL(lstat64)(path, file), file); }
int fstat64(int number, struct stat64 *file) { return shifted(REAL(fstat64)(number, file), file); }
int fstatat64(int folder, const char *restrict path, struct stat64 *restrict file, int flags) {
    return shifted(REAL(fstatat64)(folder, path, file, flags), file);
}

/* On a system of 64 bits both structures are the same. */
int stat(const char *restrict path, struct stat *restrict file) { return stat64(path, (struct stat64 *)file); }
int lstat(const char *restrict path, struct stat *restrict file) { return lstat64(path, (struct stat64 *)file); }
int fstat(int number, struct stat *file) { return fstat64(number, (struct stat64 *)file); }
int fstatat(int folder, const char *restrict path, struct stat *restrict file, int flags) {
    return fstatat64(folder, path, (struct stat64 *)file, flags);
}

static const struct timespec *unshifted(const struct timespec times[2], struct timespec store[2]) {
    if (!times) return NULL;
    for (int i = 0; i < 2; i++) {
        store[i] = times[i];
        if (times[i].tv_nsec != UTIME_NOW && times[i].tv_nsec != UTIME_OMIT) store[i].tv_sec -= moved();
    }
    return store;
}

int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    struct timespec store[2];
    return REAL(utimensat)(folder, path, unshifted(times, store), flags);
}

int futimens(int number, const struct timespec times[2]) {
    struct timespec store[2];
    return REAL(futimens)(number, unshifted(times, store));
}

/* -- waiting until a time ----------------------------------------------------------------------- */

/* A deadline may be by the clock of the day or by one that runs since the machine's start: the nearer one is meant. */
static struct timespec deadline(const struct timespec *given) {
    struct timespec now, until = *given;
    clock_gettime(CLOCK_REALTIME, &now);
    if (labs(given->tv_sec - now.tv_sec) < 366 * 86400) until.tv_sec -= moved();
    return until;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static __typeof__(&pthread_cond_timedwait) real;
    if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real) real = REAL(pthread_cond_timedwait);
    struct timespec moved_back = deadline(until);
    return real(condition, mutex, &moved_back);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    struct timespec moved_back = deadline(until);
    return REAL(sem_timedwait)(semaphore, &moved_back);
}
