/* Does one thing with memory for each line on stdin, `NAME BYTES`, each in a function of that name, and
 * says when it is done: what is resident by each is known exactly. All regions begin at a huge page. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE_PAGE (2UL << 20)
#define PAGE 4096UL
/* A touched MiB a millisecond: the ring of samples takes a burst of that. */
#define AT_ONCE (1UL << 20)

#define NOIPA __attribute__((noipa))
#define ALWAYS_INLINE inline __attribute__((always_inline))

static char *kept, *shared, *later, *plain;

static char *map(size_t bytes, int advice)
{
	uintptr_t start = (uintptr_t)mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *region = (char *)((start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));

	if (start == (uintptr_t)MAP_FAILED || madvise(region, bytes, advice))
		exit(1);
	return region;
}

/* Inlined: the function that touches is the one that is named. */
static ALWAYS_INLINE void touch(char *region, size_t bytes)
{
	size_t at;

	for (at = 0; at < bytes; at += PAGE) {
		((volatile char *)region)[at] = 1;
		if (at % AT_ONCE == AT_ONCE - PAGE)
			usleep(1000);
	}
}

NOIPA void keeps(size_t bytes)
{
	kept = map(bytes, MADV_NOHUGEPAGE);
	touch(kept, bytes);
}

NOIPA void keeps_huge(size_t bytes)
{
	touch(map(bytes, MADV_HUGEPAGE), bytes);
}

/* Huge pages of which each fourth small page is given back, but not the first. */
NOIPA void splits_huge(size_t bytes)
{
	char *region = map(bytes, MADV_HUGEPAGE);
	size_t at;

	touch(region, bytes);
	for (at = PAGE; at < bytes; at += 4 * PAGE)
		madvise(region + at, PAGE, MADV_DONTNEED);
}

NOIPA void unmaps(size_t bytes)
{
	char *region = map(bytes, MADV_NOHUGEPAGE);

	touch(region, bytes);
	munmap(region, bytes);
}

NOIPA void unmaps_half(size_t bytes)
{
	char *region = map(bytes, MADV_NOHUGEPAGE);

	touch(region, bytes);
	munmap(region + bytes / 2, bytes / 2);
}

NOIPA void unmaps_half_huge(size_t bytes)
{
	char *region = map(bytes, MADV_HUGEPAGE);

	touch(region, bytes);
	munmap(region + bytes / 2, bytes / 2);
}

/* A quarter stays; what is written to again after that is another function's. */
NOIPA void advises(size_t bytes)
{
	plain = map(bytes, MADV_NOHUGEPAGE);
	touch(plain, bytes);
	madvise(plain + bytes / 4, bytes - bytes / 4, MADV_DONTNEED);
}

NOIPA void touches_again(size_t bytes)
{
	touch(plain + bytes / 4, bytes / 4);
}

/* Grows in place. */
NOIPA void extends(size_t bytes)
{
	char *region = map(bytes, MADV_NOHUGEPAGE);

	munmap(region + bytes / 2, bytes / 2);
	touch(region, bytes / 2);
	if (mremap(region, bytes / 2, bytes, 0) != region)
		exit(1);
	touch(region + bytes / 2, bytes / 2);
}

/* Moves away with its pages. */
NOIPA void moves(size_t bytes)
{
	char *region = map(bytes, MADV_NOHUGEPAGE);
	char *target = map(bytes, MADV_NOHUGEPAGE);

	touch(region, bytes);
	if (mremap(region, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
		exit(1);
}

NOIPA void gives_back_later(size_t bytes)
{
	later = map(bytes, MADV_NOHUGEPAGE);
	touch(later, bytes);
}

NOIPA void gives_back(size_t bytes)
{
	munmap(later, bytes);
}

NOIPA void grows_later(size_t bytes)
{
	touch(map(bytes, MADV_NOHUGEPAGE), bytes);
}

/* Small pages, given back, where the next one touches huge pages. */
NOIPA void touches_small(size_t bytes)
{
	plain = map(bytes, MADV_NOHUGEPAGE);
	touch(plain, bytes);
	if (madvise(plain, bytes, MADV_DONTNEED) || madvise(plain, bytes, MADV_HUGEPAGE))
		exit(1);
}

NOIPA void touches_huge(size_t bytes)
{
	touch(plain, bytes);
}

/* Reads only: the zero page is nobody's memory. */
NOIPA void reads(size_t bytes)
{
	char *region = map(bytes, MADV_NOHUGEPAGE);
	size_t at;

	for (at = 0; at < bytes; at += PAGE)
		(void)((volatile char *)region)[at];
}

NOIPA void child_writes(size_t bytes)
{
	touch(shared, bytes);
}

NOIPA void child_keeps(size_t bytes)
{
	touch(map(bytes, MADV_NOHUGEPAGE), bytes);
}

NOIPA void parent_writes_again(size_t bytes)
{
	touch(shared, bytes);
}

/* A child writes to the first half of what its parent has, and to memory of its own; then the parent to
 * all of it. The child lives on until its parent ends. */
NOIPA void parent_writes(size_t bytes)
{
	int ready[2];
	char byte;

	shared = map(bytes, MADV_NOHUGEPAGE);
	touch(shared, bytes);
	if (pipe(ready))
		exit(1);
	switch (fork()) {
	case -1:
		exit(1);
	case 0:
		child_writes(bytes / 2);
		child_keeps(bytes);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		while (getppid() != 1 && !usleep(10000))
			;
		_exit(0);
	}
	if (read(ready[0], &byte, 1) != 1)
		exit(1);
	parent_writes_again(bytes);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(size_t bytes);
	} all[] = {
#define NAMED(name) { #name, name }
		NAMED(keeps), NAMED(keeps_huge), NAMED(splits_huge), NAMED(unmaps), NAMED(unmaps_half),
		NAMED(unmaps_half_huge), NAMED(advises), NAMED(touches_again), NAMED(extends),
		NAMED(moves), NAMED(gives_back_later), NAMED(gives_back), NAMED(grows_later),
		NAMED(touches_small), NAMED(touches_huge), NAMED(reads), NAMED(parent_writes),
	};
	char line[100], name[100];
	size_t bytes, i;

	while (fgets(line, sizeof line, stdin) && sscanf(line, "%99s %zu", name, &bytes) == 2) {
		for (i = 0; i < sizeof all / sizeof *all; i++)
			if (!strcmp(name, all[i].name))
				all[i].run(bytes);
		puts("done");
		fflush(stdout);
		/* Nothing is read ahead that was meant for the next program. */
		if (!strcmp(name, "execs"))
			execv("/proc/self/exe", argv);
	}
	return argc < 0;
}
