/* A batch job: every few seconds a burst takes much memory, works on it and gives all of it back.
 * `batch BYTES` */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	size_t most;
	unsigned int job;

	if (argc != 2)
		return 2;
	most = strtoull(argv[1], NULL, 10);
	puts("works");
	fflush(stdout);
	for (job = 0;; job++) {
		/* Jobs of 40 % to 100 % in an order without a trend. */
		size_t bytes = most / 10 * (4 + job * 5 % 7), part = bytes / 20;
		char *rows = malloc(bytes);

		if (!rows)
			return 1;
		for (size_t at = 0; at < bytes; at += part) {
			memset(rows + at, 'r', bytes - at < part ? bytes - at : part);
			usleep(50 * 1000);
		}
		sleep(1 + job % 3);
		free(rows);
		sleep(2 + job % 4);
	}
}
