/* The limit: an epoll loop that frames, answers and fans out, and does no protocol work.
 *
 * It has the same conversation as the real servers (a greeting, joins and messages answered), because a frame
 * from the client on a connection makes the kernel's later sends on it dearer. Everybody is in one room.
 *   bare PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MAX_FD 65536
#define INPUT 65536

static const char HANDSHAKE[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"; /* of the one key that wsload sends */
static unsigned char *input[MAX_FD];
static size_t have[MAX_FD];
static char open_[MAX_FD];
static int joined[MAX_FD], joined_count;

static void put(int fd, const void *data, size_t size) {
    const char *rest = data;
    while (size) {
        ssize_t n = send(fd, rest, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) continue;
        if (n < 0) return;
        rest += n;
        size -= n;
    }
}

static size_t frame(unsigned char *out, const char *text, size_t size) {
    size_t head = size < 126 ? 2 : 4;
    out[0] = 0x81;
    out[1] = size < 126 ? size : 126;
    if (head == 4) out[2] = size >> 8, out[3] = size & 255;
    memcpy(out + head, text, size);
    return head + size;
}

static void answer(int fd, const char *text) {
    unsigned char out[512];
    put(fd, out, frame(out, text, strlen(text)));
}

static void leave(int fd) {
    for (int i = 0; i < joined_count; i++)
        if (joined[i] == fd) joined[i--] = joined[--joined_count];
    open_[fd] = 0;
    have[fd] = 0;
    close(fd);
}

static void message(int fd, char *text, size_t size) {
    unsigned char out[1024];
    if (memmem(text, size < 40 ? size : 40, "\"join\"", 6)) {
        joined[joined_count++] = fd;
        answer(fd, "{\"type\":\"channel:joined\",\"requestId\":1,\"channel\":\"presence-room-1\"}");
    } else if (memmem(text, size < 40 ? size : 40, "\"ping\"", 6)) {
        answer(fd, "{\"type\":\"pong\",\"requestId\":1,\"timestamp\":1700000000000}");
    } else {
        size_t n = frame(out, text, size);
        for (int i = 0; i < joined_count; i++)
            if (joined[i] != fd) put(joined[i], out, n);
        answer(fd, "{\"type\":\"channel:sent\",\"requestId\":7,\"delivered\":100}");
    }
}

static void readable(int fd) {
    if (!input[fd]) input[fd] = malloc(INPUT);
    ssize_t n = recv(fd, input[fd] + have[fd], INPUT - have[fd], MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return leave(fd);
    have[fd] += n;
    unsigned char *data = input[fd];
    size_t rest = have[fd];
    if (!open_[fd]) {
        if (rest < 4 || memcmp(data + rest - 4, "\r\n\r\n", 4)) return;
        put(fd, HANDSHAKE, sizeof HANDSHAKE - 1);
        answer(fd, "{\"type\":\"connected\",\"clientId\":\"x\",\"user\":null}");
        open_[fd] = 1;
        have[fd] = 0;
        return;
    }
    while (rest >= 6) {
        size_t size = data[1] & 127, head = 6;
        if (size == 126) size = data[2] << 8 | data[3], head = 8;
        if (rest < head + size) break;
        for (size_t i = 0; i < size; i++) data[head + i] ^= data[head - 4 + (i & 3)];
        if ((data[0] & 15) == 8) return leave(fd);
        if ((data[0] & 15) == 1) message(fd, (char *)data + head, size);
        data += head + size;
        rest -= head + size;
    }
    memmove(input[fd], data, rest);
    have[fd] = rest;
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, loop = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) return perror("bind"), 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[512];
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(loop, events, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                readable(fd);
                continue;
            }
            fd = accept(listener, NULL, NULL);
            if (fd < 0 || fd >= MAX_FD) continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            event.data.fd = fd;
            have[fd] = 0, open_[fd] = 0;
            epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
