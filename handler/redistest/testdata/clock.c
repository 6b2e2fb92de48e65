// The wall clock of the program that this is preloaded into, as the file CLOCK says: two int64, the milliseconds that it is ahead, and the
// time at which it stands still, in Unix milliseconds, or 0. The file is mapped, so another process can change it while the program runs.
// Clocks that only measure durations are left alone.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct said {
	int64_t ahead, frozen;
};

static struct said nothing;
static const volatile struct said *said = &nothing;

__attribute__((constructor)) static void map(void) {
	const char *path = getenv("CLOCK");
	int file = path ? open(path, O_RDONLY) : -1;
	if (file < 0) return;
	void *place = mmap(NULL, sizeof *said, PROT_READ, MAP_SHARED, file, 0);
	if (place != MAP_FAILED) said = place;
	close(file);
}

int clock_gettime(clockid_t clock, struct timespec *t) {
	if (syscall(SYS_clock_gettime, clock, t)) return -1;
	if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) return 0;
	int64_t ms = said->frozen, ns = 0;
	if (!ms) {
		ms = t->tv_sec * 1000 + t->tv_nsec / 1000000 + said->ahead;
		ns = t->tv_nsec % 1000000;
	}
	t->tv_sec = ms / 1000;
	t->tv_nsec = ms % 1000 * 1000000 + ns;
	return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
	struct timespec now;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
	t->tv_sec = now.tv_sec;
	t->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *t) {
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
	if (t) *t = now.tv_sec;
	return now.tv_sec;
}
