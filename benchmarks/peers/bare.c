/* bare: the limit. One epoll loop that holds the same conversation as the real server and does nothing else.
 *
 * It answers the handshake, joins (all to one channel), pings and messages, and sends each message to every
 * other connection, with one send() each and a frame that it builds once. It trusts its client: it parses no JSON,
 * and answers every handshake as if it had wsload's fixed key. It listens on loopback only.
 *
 *   bare PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define MAX_FDS 32768
#define STAMP "2024-01-15T10:30:00.000Z"
#define CLIENT_ID "0123456789012345678901"

typedef struct {
    bool open, upgraded, joined;
    size_t slot;              /* in the list of connections that joined */
    unsigned char *in, *out;  /* an incomplete frame, and bytes that the socket did not accept */
    size_t in_size, out_size;
} peer_t;

static peer_t peers[MAX_FDS];
static int joined[MAX_FDS];
static size_t joined_count;
static int epoll_fd;
static unsigned char scratch[1 << 18];

static void watch(int fd, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event) < 0)
        perror("epoll_ctl");
}

static void drop(int fd)
{
    peer_t *peer = &peers[fd];
    if (!peer->open)
        return;
    if (peer->joined) {
        int last = joined[--joined_count];
        joined[peer->slot] = last;
        peers[last].slot = peer->slot;
    }
    free(peer->in);
    free(peer->out);
    *peer = (peer_t){0};
    close(fd);
}

static void put(int fd, const unsigned char *data, size_t size)
{
    peer_t *peer = &peers[fd];
    ssize_t sent = peer->out_size ? 0 : send(fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return; /* an event will report its end */
    if (sent < 0)
        sent = 0;
    if ((size_t)sent == size)
        return;
    if (!peer->out_size)
        watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    peer->out = realloc(peer->out, peer->out_size + size - (size_t)sent);
    memcpy(peer->out + peer->out_size, data + sent, size - (size_t)sent);
    peer->out_size += size - (size_t)sent;
}

static void on_writable(int fd)
{
    peer_t *peer = &peers[fd];
    ssize_t sent = send(fd, peer->out, peer->out_size, MSG_NOSIGNAL);
    if (sent <= 0)
        return;
    peer->out_size -= (size_t)sent;
    memmove(peer->out, peer->out + sent, peer->out_size);
    if (!peer->out_size)
        watch(fd, EPOLL_CTL_MOD, EPOLLIN);
}

/* A text frame of three parts, in a buffer that the next call reuses. */
static unsigned char *frame(const char *head, const char *body, size_t body_size, const char *tail, size_t *size)
{
    static unsigned char out[1 << 16];
    size_t head_size = strlen(head), tail_size = strlen(tail), length = head_size + body_size + tail_size, at = 2;
    out[0] = 0x81;
    out[1] = (unsigned char)(length < 126 ? length : 126);
    if (length >= 126) {
        out[2] = (unsigned char)(length >> 8);
        out[3] = (unsigned char)length;
        at = 4;
    }
    memcpy(out + at, head, head_size);
    memcpy(out + at + head_size, body, body_size);
    memcpy(out + at + head_size + body_size, tail, tail_size);
    *size = at + length;
    return out;
}

static void say(int fd, const char *text)
{
    size_t size;
    unsigned char *data = frame(text, "", 0, "", &size);
    put(fd, data, size);
}

static void broadcast(int sender, const char *data, size_t data_size)
{
    size_t size;
    unsigned char *bytes = frame("{\"type\":\"channel:message\",\"channel\":\"presence-room\",\"event\":\"message\",\"data\":",
                                 data, data_size,
                                 ",\"from\":{\"clientId\":\"" CLIENT_ID "\",\"userId\":\"user-1000\"},\"timestamp\":\"" STAMP "\"}",
                                 &size);
    for (size_t i = 0; i < joined_count; i++)
        if (joined[i] != sender)
            put(joined[i], bytes, size);
    say(sender, "{\"type\":\"channel:sent\",\"channel\":\"presence-room\",\"delivered\":100}");
}

static void take_text(int fd, const char *text, size_t size)
{
    if (size > 12 && text[9] == 'j') {
        if (!peers[fd].joined) {
            peers[fd].joined = true;
            peers[fd].slot = joined_count;
            joined[joined_count++] = fd;
        }
        say(fd, "{\"type\":\"channel:joined\",\"channel\":\"presence-room\",\"channelType\":\"presence\"}");
    } else if (size > 12 && text[9] == 'p') {
        say(fd, "{\"type\":\"pong\",\"timestamp\":1700000000000}");
    } else {
        const char *data = memmem(text, size, "\"data\":", 7);
        if (data)
            broadcast(fd, data + 7, size - (size_t)(data + 7 - text) - 1);
    }
}

/* Handle the complete frames at the start of `data`, and return their size. The connection may be closed afterwards. */
static size_t take_frames(int fd, unsigned char *data, size_t size)
{
    size_t position = 0;
    while (peers[fd].open && size - position >= 6) {
        unsigned char *head = data + position;
        size_t length = head[1] & 127, start = length == 126 ? 8 : 6;
        if (size - position < start)
            break;
        if (length == 126)
            length = (size_t)head[2] << 8 | head[3];
        if (size - position - start < length)
            break;
        unsigned char *mask = head + start - 4, *payload = head + start;
        for (size_t i = 0; i < length; i++)
            payload[i] ^= mask[i & 3];
        if ((head[0] & 15) == 8)
            drop(fd);
        else if ((head[0] & 15) == 1)
            take_text(fd, (char *)payload, length);
        position += start + length;
    }
    return position;
}

static size_t take_handshake(int fd, unsigned char *data, size_t size)
{
    unsigned char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    put(fd, (const unsigned char *)answer, sizeof answer - 1);
    peers[fd].upgraded = true;
    say(fd, "{\"type\":\"connected\",\"clientId\":\"" CLIENT_ID "\",\"user\":null,\"timestamp\":\"" STAMP "\"}");
    return (size_t)(end - data) + 4;
}

static void on_readable(int fd)
{
    peer_t *peer = &peers[fd];
    size_t kept = peer->in_size;
    if (kept)
        memcpy(scratch, peer->in, kept);
    ssize_t got = recv(fd, scratch + kept, sizeof scratch - kept, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(fd);
        return;
    }
    size_t size = kept + (size_t)got, taken = 0;
    if (!peer->upgraded)
        taken = take_handshake(fd, scratch, size);
    if (peer->upgraded)
        taken += take_frames(fd, scratch + taken, size - taken);
    if (!peer->open || (!kept && taken == size))
        return;
    peer->in_size = size - taken;
    peer->in = realloc(peer->in, peer->in_size + 1);
    memcpy(peer->in, scratch + taken, peer->in_size);
}

static void accept_all(int listener)
{
    for (int fd, one = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        peers[fd] = (peer_t){.open = true};
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(int count, char **values)
{
    if (count != 2)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(values[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 2048) < 0) {
        perror("bare");
        return 1;
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    for (struct epoll_event events[1024];;) {
        int ready = epoll_wait(epoll_fd, events, 1024, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(listener);
            else if (peers[fd].open && events[i].events & EPOLLOUT)
                on_writable(fd);
            if (fd != listener && peers[fd].open && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                on_readable(fd);
        }
    }
}
