/* A service with a leak, a warm cache, and requests that take far more memory than both for a moment.
 * After a line on stdin it works for some seconds, says how much each took, and serves on. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOINLINE __attribute__((noipa))
#define TICKS 400
#define REST_TICKS 1000
#define WARM_TICKS 60
#define LEAKED 120000
#define CACHED 100000
#define CACHED_A_TICK 10
#define REQUEST (2 << 20)

static char *cache[WARM_TICKS * CACHED_A_TICK];
static char *volatile last;

static NOINLINE char *allocate(size_t bytes)
{
	char *block = malloc(bytes);

	if (!block)
		exit(1);
	memset(block, 'x', bytes);
	return block;
}

static NOINLINE void leak(size_t bytes)
{
	last = allocate(bytes);
	__asm__ volatile("" ::: "memory");
}

static NOINLINE void warm_cache(int tick)
{
	int i;

	for (i = 0; i < CACHED_A_TICK; i++)
		cache[tick * CACHED_A_TICK + i] = allocate(CACHED);
	__asm__ volatile("" ::: "memory");
}

static NOINLINE void serve_request(void)
{
	char *volatile block = allocate(REQUEST);

	free(block);
}

int main(void)
{
	const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
	int tick;

	/* Fixed: otherwise it rises, and what is freed is not given back to the kernel. */
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	getchar();
	for (tick = 0; tick < TICKS + REST_TICKS; tick++) {
		serve_request();
		if (tick < WARM_TICKS)
			warm_cache(tick);
		if (tick < TICKS)
			leak(LEAKED);
		if (tick == TICKS) {
			printf("{\"leaked\": %d, \"cached\": %d, \"touched\": %ld}\n", TICKS * LEAKED,
			       WARM_TICKS * CACHED_A_TICK * CACHED, (long)TICKS * REQUEST);
			fflush(stdout);
		}
		nanosleep(&pause, NULL);
	}
	return 0;
}
