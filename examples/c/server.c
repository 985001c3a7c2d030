/* The smallest server on a passed socket: blocking accept(2) on descriptor 3, one connection at a time.
 *
 *   cc -O2 -static -o server server.c
 *   unitgen web --instances 3 --listen 3000 --now -- /path/to/server
 *
 * It needs no other option. SIGTERM ends it at once; that comes only when the instance has no busy connection.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
    const char *instance = getenv("INSTANCE");
    for (;;) {
        char request[4096], body[128], answer[512];
        int conn = accept(3, NULL, NULL);
        if (conn < 0) {
            perror("accept");
            return 1;
        }
        ssize_t n = read(conn, request, sizeof request);
        if (n > 0) {
            int length = snprintf(body, sizeof body, "instance=%s pid=%d version=1\n", instance ? instance : "?", getpid());
            int all = snprintf(answer, sizeof answer,
                               "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
                               length, body);
            if (write(conn, answer, all) != all)
                perror("write");
        }
        close(conn);
    }
}
