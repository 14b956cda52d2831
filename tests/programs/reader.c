/* A service that reads a file again and again that is larger than its limit: its usage is at the limit
 * all the time, and nearly all of that is page cache. `reader NEW_FILE BYTES BYTES_PER_S` */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (1 << 20)

int main(int argc, char **argv)
{
	unsigned int pause;
	char *buffer;
	long chunks;
	int file;

	if (argc != 4)
		return 2;
	/* Pages belong to the cgroup that touches them first: the file is made here. */
	file = open(argv[1], O_RDWR | O_CREAT | O_EXCL, 0600);
	buffer = malloc(CHUNK);
	if (file < 0 || !buffer)
		return 1;
	memset(buffer, 'f', CHUNK);
	for (chunks = atol(argv[2]) / CHUNK; chunks > 0; chunks--) {
		/* Dirty pages cannot be reclaimed: on cgroup v1 too many of them are an OOM. */
		if (write(file, buffer, CHUNK) != CHUNK || fdatasync(file))
			return 1;
	}
	pause = (unsigned int)(1e6 * CHUNK / atof(argv[3]));
	puts("reads");
	fflush(stdout);
	for (;; usleep(pause)) {
		ssize_t length = read(file, buffer, CHUNK);

		if (length < 0)
			return 1;
		if (length == 0)
			lseek(file, 0, SEEK_SET);
	}
}
