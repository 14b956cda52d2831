/* A server written in C that forgets to free what one of its routes keeps of each request: the most
 * usual leak of native services. `leak CALM_S BYTES_PER_S` */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Configuration and tables, from the start. */
#define TABLES (6 << 20)
#define SESSION 1024
#define ANSWER 65536

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* What a request costs while it is served. */
static void answer(void)
{
	char *body = malloc(ANSWER);

	if (!body)
		exit(1);
	memset(body, 'a', ANSWER);
	free(body);
}

/* The session of a request: nobody frees it. */
static void open_session(void)
{
	char *volatile session = malloc(SESSION);

	if (!session)
		exit(1);
	memset(session, 's', SESSION);
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
	double begin, calm, rate, leaked = 0;
	char *volatile tables = malloc(TABLES);

	if (argc != 3 || !tables)
		return 2;
	memset(tables, 't', TABLES);
	calm = atof(argv[1]);
	rate = atof(argv[2]);
	for (begin = now(); now() - begin < calm; nanosleep(&pause, NULL))
		answer();
	puts("leaks");
	fflush(stdout);
	for (begin = now();; nanosleep(&pause, NULL)) {
		answer();
		for (; leaked < rate * (now() - begin); leaked += SESSION)
			open_session();
	}
}
