/* client - HTTP/1.1 load for the bench, in one thread and with as few system calls as there can be.
 *
 * client takes its CPU from the same processors as what it measures: each microsecond that it costs makes all ratios
 * look more alike. So it is C, one epoll loop, and reads clocks through the vDSO alone. One request costs one write and
 * one read; one connection also socket, setsockopt, bind, connect, epoll_ctl and close.
 *
 *     client MODE ADDRESS PORT CONNECTIONS MILLISECONDS [REQUESTS-PER-SECOND [redis]]
 *
 * conn  every request has a connection of its own
 * keep  CONNECTIONS are kept
 * bulk  CONNECTIONS read an answer without end
 * idle  CONNECTIONS are opened, ask once, and stay open until standard input ends
 *
 * Without a rate the loop is closed: a client asks again when it is answered. With a rate requests are due at fixed
 * times, and the latency of one counts from when it was due, so that a server that stalls is charged for every request
 * that would have come meanwhile (no coordinated omission).
 *
 * With "redis" requests are "GET pid" of that protocol.
 *
 * It prints one line of JSON. Failures are counted, and end nothing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum mode { CONN, KEEP, BULK, IDLE };

/* A client that asks one question at a time. */
struct client {
	int fd;           /* -1: no connection */
	int number;       /* decides the source address: the ports of one would run out in TIME_WAIT */
	int sent;         /* the request is on its way */
	int asking;       /* its request is not answered yet */
	int first;        /* the next answer is the first of its connection */
	uint64_t began;   /* when the request was due, in ns */
	int length;       /* bytes of the answer so far */
	char answer[512];
	struct client *next; /* in the list of those that have nothing to do */
};

static enum mode mode;
static int redis; /* in place of HTTP */
static struct sockaddr_in to;
static int epoll_fd;
static struct client *idle, *idle_last; /* a queue: with a rate, every connection has its turn */
static uint64_t ok, failed, bytes;

/* Answers by process. */
static struct { char pid[16]; uint64_t n; } seen[4096];
static int seen_n;

/* Latencies: 32 steps for each power of two, so that a step is 3 % at the most. */
static uint64_t histogram[64 * 32];

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int step_of(uint64_t ns)
{
	if (ns < 64)
		return ns / 2;
	int top = 63 - __builtin_clzll(ns);
	return (top - 5) * 32 + ((ns >> (top - 5)) & 31) ;
}

static uint64_t of_step(int step)
{
	if (step < 32)
		return step * 2;
	int top = step / 32 + 5;
	return (1ull << top) + ((uint64_t)(step % 32) << (top - 5));
}

static uint64_t quantile(double q)
{
	uint64_t n = 0, want = q * ok;
	for (int i = 0; i < 64 * 32; i++)
		if ((n += histogram[i]) > want)
			return of_step(i);
	return 0;
}

static void rest(struct client *c)
{
	c->asking = 0;
	c->next = NULL;
	*(idle ? &idle_last->next : &idle) = c;
	idle_last = c;
}

static void hang_up(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void give_up(struct client *c)
{
	failed++;
	hang_up(c);
	rest(c);
}

/* ask sends the request; a connection that is not complete yet is watched until it is. */
static void ask(struct client *c)
{
	const char *text = mode == BULK ? "GET /bulk HTTP/1.1\r\nHost: bench\r\n\r\n" :
		redis ? "GET pid\r\n" : "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
	size_t n = strlen(text);
	c->length = 0;
	if (send(c->fd, text, n, MSG_NOSIGNAL) == (ssize_t)n)
		c->sent = 1;
	else if (errno != EAGAIN)
		give_up(c);
}

/* begin makes a request, on a new connection where there is none. */
static void begin(struct client *c, uint64_t due)
{
	c->began = due, c->asking = 1;
	if (c->fd >= 0) {
		ask(c);
		return;
	}
	struct sockaddr_in from = { .sin_family = AF_INET };
	from.sin_addr.s_addr = htonl(0x7f010001u + c->number % 60000);
	int on = 1;
	c->sent = 0, c->first = 1;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0 ||
	    bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0 ||
	    (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)) {
		give_up(c);
		return;
	}
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e) < 0) {
		give_up(c);
		return;
	}
	ask(c);
}

static void count(const char *body, int n)
{
	char pid[16] = "";
	for (int i = 0, k = 0; i < n && k < 15; i++)
		if (body[i] >= '0' && body[i] <= '9')
			pid[k++] = body[i], pid[k] = 0;
	for (int i = 0; i < seen_n; i++)
		if (!strcmp(seen[i].pid, pid)) {
			seen[i].n++;
			return;
		}
	if (seen_n < 4096) {
		strcpy(seen[seen_n].pid, pid);
		seen[seen_n++].n = 1;
	}
}

/* whole_redis is whole of "$LENGTH\r\nVALUE\r\n". */
static int whole_redis(struct client *c, char **body)
{
	if (c->length > 0 && c->answer[0] != '$')
		return -1;
	char *end = strstr(c->answer, "\r\n");
	if (!end)
		return c->length < (int)sizeof c->answer - 1 ? 0 : -1;
	int n = atoi(c->answer + 1);
	if (n < 1)
		return -1;
	*body = end + 2;
	return c->answer + c->length - *body >= n + 2;
}

/* whole says whether the answer is complete: 1, not yet: 0, or wrong: -1. *body is where the body begins. */
static int whole(struct client *c, char **body)
{
	c->answer[c->length] = 0;
	if (redis)
		return whole_redis(c, body);
	char *end = strstr(c->answer, "\r\n\r\n");
	if (!end)
		return c->length < (int)sizeof c->answer - 1 ? 0 : -1;
	if (strncmp(c->answer, "HTTP/1.1 200", 12))
		return -1;
	char *length = strcasestr(c->answer, "\r\ncontent-length:");
	if (!length || length > end)
		return -1;
	*body = end + 4;
	return c->answer + c->length - *body >= atoi(length + 17);
}

/* answered ends a request. */
static void answered(struct client *c, char *body)
{
	uint64_t t = now();
	ok++;
	histogram[step_of(t - c->began)]++;
	if (c->first)
		count(body, c->answer + c->length - body);
	c->first = 0;
	if (mode == CONN)
		hang_up(c);
	rest(c);
}

static void take(struct client *c)
{
	if (mode == BULK) {
		/* TCP discards what is read with MSG_TRUNC without a copy (tcp(7)). */
		for (int i = 0; i < 16; i++) {
			ssize_t n = recv(c->fd, NULL, 1 << 20, MSG_TRUNC);
			if (n > 0)
				bytes += n;
			else if (n == 0 || errno != EAGAIN) {
				failed++;
				hang_up(c);
				return;
			} else
				return;
		}
		/* Edge-triggered: what is left would not be told again. */
		struct epoll_event e = { .events = EPOLLIN | EPOLLET, .data.ptr = c };
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
		return;
	}
	ssize_t n = recv(c->fd, c->answer + c->length, sizeof c->answer - 1 - c->length, 0);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		give_up(c);
		return;
	}
	c->length += n;
	char *body;
	int done = whole(c, &body);
	if (done > 0)
		answered(c, body);
	else if (done < 0)
		give_up(c);
}

static void event(struct client *c, uint32_t events)
{
	if (c->fd < 0)
		return;
	if (!c->sent && events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		ask(c);
	if (c->fd >= 0 && c->sent && events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		take(c);
}

/* run goes on until end; a rate of 0 is a closed loop. */
static void run(uint64_t end, double rate)
{
	struct epoll_event events[256];
	uint64_t start = now(), due = start, k = 0;
	for (;;) {
		uint64_t t = now();
		if (t >= end)
			return;
		while (idle && (rate == 0 || due <= t)) {
			struct client *c = idle;
			idle = c->next;
			begin(c, rate == 0 ? now() : due);
			if (rate != 0)
				due = start + (uint64_t)(++k / rate * 1e9);
			if (failed > ok + 1000)
				return; /* nobody is there */
		}
		uint64_t until = rate != 0 && idle && due < end ? due : end;
		struct timespec left = { 0, 0 };
		if (until > t) {
			left.tv_sec = (until - t) / 1000000000ull;
			left.tv_nsec = (until - t) % 1000000000ull;
		}
		int n = epoll_pwait2(epoll_fd, events, 256, &left, NULL);
		for (int i = 0; i < n; i++)
			event(events[i].data.ptr, events[i].events);
	}
}

static void report(uint64_t elapsed)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	printf("{\"ok\":%llu,\"failed\":%llu,\"bytes\":%llu,\"ns\":%llu,\"p50\":%llu,\"p99\":%llu,\"p999\":%llu,\"cpu\":%llu,\"answers\":{",
	       (unsigned long long)ok, (unsigned long long)failed, (unsigned long long)bytes, (unsigned long long)elapsed,
	       (unsigned long long)quantile(.5), (unsigned long long)quantile(.99), (unsigned long long)quantile(.999),
	       (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000ull + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000ull);
	for (int i = 0; i < seen_n; i++)
		printf("%s\"%s\":%llu", i ? "," : "", seen[i].pid, (unsigned long long)seen[i].n);
	printf("}}\n");
	fflush(stdout);
}

static int usage(void)
{
	fprintf(stderr, "usage: client conn|keep|bulk|idle ADDRESS PORT CONNECTIONS MILLISECONDS [REQUESTS-PER-SECOND [redis]]\n");
	return 2;
}

/* all_rest says whether n clients wait for nothing. */
static int all_rest(int n)
{
	for (struct client *c = idle; c; c = c->next)
		n--;
	return n == 0;
}

int main(int argc, char **argv)
{
	if (argc < 6)
		return usage();
	static const char *names[] = { "conn", "keep", "bulk", "idle" };
	int m = 0;
	while (m < 4 && strcmp(argv[1], names[m]))
		m++;
	int n = atoi(argv[4]);
	if (m == 4 || n < 1 || n > 200000)
		return usage();
	mode = m;
	redis = argc > 7 && !strcmp(argv[7], "redis");
	to.sin_family = AF_INET;
	to.sin_port = htons(atoi(argv[3]));
	if (inet_pton(AF_INET, argv[2], &to.sin_addr) != 1)
		return usage();
	struct client *clients = calloc(n, sizeof *clients);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (int i = n - 1; i >= 0; i--) {
		clients[i].fd = -1, clients[i].number = i;
		if (mode != IDLE)
			rest(&clients[i]);
	}
	uint64_t began = now(), span = atoi(argv[5]) * 1000000ull;
	if (mode == IDLE) {
		/* A hundred at a time, so that no backlog overflows. */
		for (int i = 0; i < n && failed == 0; i++) {
			begin(&clients[i], now());
			struct epoll_event e[64];
			for (int k; (i % 100 == 99 || i == n - 1) && !all_rest(i + 1) && failed == 0 && now() < began + span;) {
				k = epoll_wait(epoll_fd, e, 64, 100);
				for (int j = 0; j < k; j++)
					event(e[j].data.ptr, e[j].events);
			}
		}
		report(now() - began);
		char end;
		while (read(0, &end, 1) > 0)
			;
		return 0;
	}
	run(began + span, argc > 6 ? atof(argv[6]) : 0);
	/* A request that is out for longer than a second has failed. */
	uint64_t t = now();
	if (mode != BULK)
		for (int i = 0; i < n; i++)
			failed += clients[i].asking && t - clients[i].began > 1000000000ull;
	report(t - began);
	return 0;
}
