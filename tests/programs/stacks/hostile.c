/* Programs that make it hard to say which code holds memory: `hostile MODE [ARGUMENTS]`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOIPA __attribute__((noipa))
#define PAGE 4096UL
/* As hot as the ring of samples takes when every page is one. */
#define PATHS_A_MILLISECOND 8
#define DEPTH 15

static NOIPA char *map(size_t bytes)
{
	char *region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (region == MAP_FAILED || madvise(region, bytes, MADV_NOHUGEPAGE))
		exit(1);
	return region;
}

static NOIPA void keep(size_t bytes)
{
	char *region = map(bytes);
	size_t at;

	for (at = 0; at < bytes; at += PAGE)
		((volatile char *)region)[at] = 1;
}

/* Each life of a program that executes itself over and over. */
static NOIPA void live(void)
{
	keep(2 << 20);
	usleep(3000);
}

static NOIPA void *work(void *unused)
{
	keep(256 << 10);
	return unused;
}

static volatile char *next;

static NOIPA void left(unsigned path, int depth);
static NOIPA void right(unsigned path, int depth);

/* A path through the code for each number, by its bits. */
static inline __attribute__((always_inline)) void walk(unsigned path, int depth)
{
	if (depth == 0) {
		*next = 1;
		next += PAGE;
	} else if (path >> (depth - 1) & 1) {
		right(path, depth - 1);
	} else {
		left(path, depth - 1);
	}
	__asm__ volatile("" ::: "memory");
}

static NOIPA void left(unsigned path, int depth)
{
	walk(path, depth);
}

static NOIPA void right(unsigned path, int depth)
{
	walk(path, depth);
}

/* Calls `leak_page` of the library, or keeps pages of its own. */
static NOIPA void serve(void (*leak_page)(char *page))
{
	char *region = map(PAGE << 8);
	int page;

	for (page = 0; page < 1 << 8; page++)
		leak_page(region + page * PAGE);
}

static NOIPA void leak_own_page(char *page)
{
	*(volatile char *)page = 1;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	int lives = argc > 2 ? atoi(argv[2]) : 0;

	if (!strcmp(mode, "exec")) {
		char text[12];

		if (lives == 0)
			getchar();
		live();
		snprintf(text, sizeof text, "%d", lives + 1);
		if (lives < 1000)
			execl("/proc/self/exe", argv[0], mode, text, NULL);
		return 1;
	}
	getchar();
	if (!strcmp(mode, "threads")) {
		for (lives = 0; lives < 400; lives++) {
			pthread_t thread;

			if (pthread_create(&thread, NULL, work, NULL) || pthread_join(thread, NULL))
				return 1;
			usleep(1000);
		}
	} else if (!strcmp(mode, "paths")) {
		unsigned path;

		next = map(lives * PAGE);
		for (path = 0; path < (unsigned)lives; path++) {
			walk(path, DEPTH);
			if (path % PATHS_A_MILLISECOND == 0)
				usleep(1000);
		}
	} else if (!strcmp(mode, "serve")) {
		void (*leak_page)(char *) = leak_own_page;
		int served;

		if (argc > 2) {
			void *library = dlopen(argv[2], RTLD_NOW);

			if (!library)
				fprintf(stderr, "%s\n", dlerror());
			leak_page = library ? (void (*)(char *))dlsym(library, "leak_page") : NULL;
			if (!leak_page)
				return 1;
		}
		puts("loaded");
		fflush(stdout);
		getchar();
		for (served = 0; served < 80; served++) {
			serve(leak_page);
			usleep(20000);
		}
	}
	puts("done");
	fflush(stdout);
	sleep(120);
	return 0;
}
