/* server - an instance for the bench: answers every request with "pid=" and its number.
 *
 * It is as little of a web server as the load needs, so that what is measured is what stands before it: one thread, one
 * epoll loop, one read and one write for each request.
 *
 *     server fd:3            the listener is passed
 *     server unix:/PATH      it makes its own
 *     server tcp:PORT        on 127.0.0.1, without SO_REUSEPORT: as a program that knows of nobody else
 *
 * "GET /bulk" is answered without end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What a descriptor is in the loop: its number, and the highest bit for one that gets bytes without end. */
#define BULK (1ull << 32)

static int epoll_fd;
static char answer[128], head[] = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n";
static size_t answer_n;
static char block[256 << 10];

static int open_listener(const char *where)
{
	int fd;
	if (!strncmp(where, "fd:", 3))
		return atoi(where + 3);
	if (!strncmp(where, "unix:", 5)) {
		struct sockaddr_un a = { .sun_family = AF_UNIX };
		snprintf(a.sun_path, sizeof a.sun_path, "%s", where + 5);
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		return fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 4096) < 0 ? -1 : fd;
	}
	if (strncmp(where, "tcp:", 4))
		return errno = EINVAL, -1;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(where + 4)) };
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 4096) < 0 ? -1 : fd;
}

static void stream(int fd)
{
	for (int i = 0; i < 4; i++)
		if (send(fd, block, sizeof block, MSG_NOSIGNAL) < (ssize_t)sizeof block)
			break;
	/* Level-triggered: the loop comes back while there is room. */
	if (errno != EAGAIN && errno != 0 && errno != EINTR)
		close(fd);
}

static void serve(int fd)
{
	char request[1024];
	ssize_t n = recv(fd, request, sizeof request, 0);
	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			close(fd);
		return;
	}
	if (n > 9 && !memcmp(request, "GET /bulk", 9)) {
		struct epoll_event e = { .events = EPOLLOUT, .data.u64 = fd | BULK };
		if (send(fd, head, sizeof head - 1, MSG_NOSIGNAL) < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &e) < 0)
			close(fd);
		return;
	}
	/* The load sends a request in one piece, and waits for its answer. */
	if (send(fd, answer, answer_n, MSG_NOSIGNAL) < (ssize_t)answer_n)
		close(fd);
}

int main(int argc, char **argv)
{
	int listener = argc == 2 ? open_listener(argv[1]) : -1;
	if (listener < 0) {
		fprintf(stderr, "usage: server fd:N|unix:/PATH|tcp:PORT: %s\n", strerror(errno));
		return 2;
	}
	char body[32];
	int n = snprintf(body, sizeof body, "pid=%d\n", getpid());
	answer_n = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", n, body);
	signal(SIGPIPE, SIG_IGN);
	fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = listener }, events[256];
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e) < 0) {
		perror("server");
		return 1;
	}
	for (;;) {
		int got = epoll_wait(epoll_fd, events, 256, -1);
		for (int i = 0; i < got; i++) {
			int fd = (int)(events[i].data.u64 & 0xffffffff);
			if (fd == listener) {
				for (int k = 0, c; k < 64 && (c = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0; k++) {
					struct epoll_event in = { .events = EPOLLIN, .data.u64 = c };
					epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c, &in);
				}
			} else if (events[i].data.u64 & BULK) {
				errno = 0;
				stream(fd);
			} else
				serve(fd);
		}
	}
}
