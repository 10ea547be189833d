/* A WebSocket load client: one process, one epoll loop, bounded in time and count, loopback only.
 *
 *   wsload MODE PORT PATH DIALECT CONNECTIONS SECONDS WINDOW TOKENS
 *
 * MODE     fanout | latency | ping | hold | storm | flood | handshake
 * DIALECT  presence (the JSON frames of the protocol) | socketio (the same inside Engine.IO packets)
 * WINDOW   messages in flight (fanout), messages a second (latency), connections a channel (hold)
 * TOKENS   a file with one token a line, or - for anonymous connections; "-:public" as the channel's prefix
 *
 * Prints one line of JSON. Latencies are in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER 262144
#define MAX_SAMPLES 4000000

struct connection {
    int fd;
    size_t have;
    unsigned char *pending; /* an incomplete frame */
    long frames;
    double sent_at;
};

static const char *dialect, *mode;
static int port, epoll_fd;
static const char *path;
static struct connection *all;
static float *samples;
static long sample_count;
static unsigned char scratch[2 * BUFFER];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
    fprintf(stderr, "wsload %s: %s: %s\n", mode, what, strerror(errno));
    exit(2);
}

static void sample(double seconds) {
    if (sample_count < MAX_SAMPLES) samples[sample_count++] = (float)(seconds * 1e6);
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float percentile(double share) {
    return sample_count ? samples[(long)((sample_count - 1) * share)] : 0;
}

static void write_all(int fd, const void *data, size_t size) {
    const char *rest = data;
    while (size) {
        ssize_t n = send(fd, rest, size, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) die("send");
        rest += n;
        size -= n;
    }
}

/* A masked text frame; the mask is zero, so the payload stays readable. */
static size_t make_frame(unsigned char *out, const char *text, size_t size) {
    size_t head = 2;
    out[0] = 0x81;
    if (size < 126) {
        out[1] = 0x80 | size;
    } else {
        out[1] = 0xFE;
        out[2] = size >> 8;
        out[3] = size & 255;
        head = 4;
    }
    memset(out + head, 0, 4);
    memcpy(out + head + 4, text, size);
    return head + 4 + size;
}

static void say(struct connection *c, const char *text) {
    unsigned char frame[4096];
    write_all(c->fd, frame, make_frame(frame, text, strlen(text)));
}

static void ask(struct connection *c, const char *event, const char *json) {
    char text[4000];
    if (!strcmp(dialect, "socketio")) {
        snprintf(text, sizeof text, "42[\"%s\",%s]", event, json);
        say(c, text);
    } else {
        say(c, json);
    }
}

/* Size of the frame at the start of data (with its head), or 0 if it is not whole. */
static size_t frame_size(const unsigned char *data, size_t have, size_t *head) {
    if (have < 2) return 0;
    size_t size = data[1] & 127;
    *head = 2;
    if (size == 126) {
        if (have < 4) return 0;
        size = data[2] << 8 | data[3];
        *head = 4;
    } else if (size == 127) {
        if (have < 10) return 0;
        size = 0;
        for (int i = 2; i < 10; i++) size = size << 8 | data[i];
        *head = 10;
    }
    return have >= *head + size ? *head + size : 0;
}

typedef void (*frame_handler)(struct connection *, const char *, size_t);

static void reads(struct connection *c, frame_handler handle) {
    size_t have = c->have;
    unsigned char *data = scratch;
    if (have) memcpy(scratch, c->pending, have);
    ssize_t n = recv(c->fd, scratch + have, sizeof scratch - have, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) die("the server closed a connection");
    have += n;
    size_t head, size;
    while ((size = frame_size(data, have, &head))) {
        int opcode = data[0] & 15;
        if (opcode == 8) die("the server sent a close frame");
        if (opcode == 9) {
            unsigned char pong[6] = {0x8A, 0x80};
            write_all(c->fd, pong, 6);
        } else if (opcode == 1 || opcode == 2) {
            int is_engine_ping = !strcmp(dialect, "socketio") && size == head + 1 && data[head] == '2';
            if (is_engine_ping) {
                say(c, "3");
            } else {
                c->frames++;
                handle(c, (const char *)data + head, size - head);
            }
        }
        data += size;
        have -= size;
    }
    if (have >= sizeof scratch) die("a frame is too large");
    if (have) {
        c->pending = realloc(c->pending, have);
        memcpy(c->pending, data, have);
    } else if (c->pending) {
        free(c->pending);
        c->pending = NULL;
    }
    c->have = have;
}

static void ignore(struct connection *c, const char *text, size_t size) {
    (void)c, (void)text, (void)size;
}

static void wait_frames(struct connection *c, long count) {
    double end = now() + 20;
    while (c->frames < count) {
        fd_set set;
        struct timeval patience = {1, 0};
        if (c->fd < FD_SETSIZE) {
            FD_ZERO(&set);
            FD_SET(c->fd, &set);
            select(c->fd + 1, &set, NULL, NULL, &patience);
        }
        reads(c, ignore);
        if (now() > end) die("no answer");
    }
}

static int connect_tcp(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void open_connection(struct connection *c, const char *token) {
    char request[8192], head[4096];
    memset(c, 0, sizeof *c);
    c->fd = connect_tcp();
    const char *mark = strchr(path, '?') ? "&" : "?";
    int size = snprintf(request, sizeof request,
                        "GET %s%s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                        path, *token ? mark : "", *token ? token : "", port);
    write_all(c->fd, request, size);
    size_t have = 0;
    while (have < 4 || memcmp(head + have - 4, "\r\n\r\n", 4)) {
        if (have == sizeof head || recv(c->fd, head + have, 1, 0) != 1) die("handshake");
        have++;
    }
    if (memcmp(head, "HTTP/1.1 101", 12)) {
        fprintf(stderr, "%.*s\n", (int)have, head);
        die("refused");
    }
    if (!strcmp(dialect, "socketio")) {
        wait_frames(c, 1);
        say(c, "40");
        wait_frames(c, 2);
    } else {
        wait_frames(c, 1);
    }
}

static void join(struct connection *c, const char *channel) {
    char json[512];
    long before = c->frames;
    snprintf(json, sizeof json, "{\"type\":\"join\",\"channel\":\"%s\",\"requestId\":1}", channel);
    ask(c, "join", json);
    wait_frames(c, before + 1);
}

static void watch(struct connection *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static double busy;

/* Never sleeps: the client has a core of its own, and to wake it up would be the server's cost, the dearer the
 * slower the server is. `busy` is the time in which there was something to do. */
static void poll_once(frame_handler handle) {
    struct epoll_event events[512];
    int n = epoll_wait(epoll_fd, events, 512, 0);
    if (n <= 0) return;
    double start = now();
    for (int i = 0; i < n; i++) reads(events[i].data.ptr, handle);
    busy += now() - start;
}

static void settle(frame_handler handle) {
    double quiet = now();
    while (now() - quiet < 0.3) {
        struct epoll_event events[512];
        int n = epoll_wait(epoll_fd, events, 512, 50);
        for (int i = 0; i < n; i++) reads(events[i].data.ptr, handle);
        if (n > 0) quiet = now();
    }
}

static struct connection *publisher;
static long delivered;
static int timed;

static void on_delivery(struct connection *c, const char *text, size_t size) {
    if (c == publisher) return;
    delivered++;
    if (timed) {
        const char *stamp = memmem(text, size, "\"t\":", 4);
        if (stamp) sample(now() - strtod(stamp + 4, NULL));
    }
}

static void publish(const char *channel) {
    char json[512];
    snprintf(json, sizeof json,
             "{\"type\":\"channel:message\",\"channel\":\"%s\",\"event\":\"m\",\"data\":{\"t\":%.7f,\"text\":\"%040d\"},"
             "\"requestId\":7}",
             channel, now(), 0);
    ask(publisher, "message", json);
}

static void report(double seconds, double used, const char *rest) {
    qsort(samples, sample_count, sizeof *samples, by_size);
    printf("{\"seconds\":%.4f,\"client_busy\":%.3f,\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,%s}\n", seconds, used / seconds,
           percentile(.5), percentile(.99), percentile(.999), rest);
}

/* Told when the measured part begins and ends, the runner reads the server's CPU time. */
static void mark(const char *word) {
    printf("%s\n", word);
    fflush(stdout);
    char line[16];
    if (!fgets(line, sizeof line, stdin)) exit(3);
}

static void fan_out(int subscribers, double seconds, int window, const char *channel) {
    char rest[256];
    publisher = &all[subscribers];
    for (int i = 0; i <= subscribers; i++) watch(&all[i]);
    settle(ignore);
    timed = !strcmp(mode, "latency");
    mark("begin");
    double start = now(), used = busy, end = start + seconds, next = start;
    long sent = 0;
    delivered = 0;
    while (now() < end) {
        if (timed) {
            while (now() >= next) publish(channel), sent++, next += 1.0 / window;
            poll_once(on_delivery);
        } else {
            while (sent - delivered / subscribers < window) publish(channel), sent++;
            poll_once(on_delivery);
        }
    }
    long counted = delivered;
    double elapsed = now() - start;
    used = busy - used;
    mark("end");
    double patience = now() + 10;
    while (delivered < sent * subscribers && now() < patience) poll_once(on_delivery);
    snprintf(rest, sizeof rest, "\"deliveries\":%ld,\"rate\":%.0f,\"lost\":%ld", counted, counted / elapsed,
             sent * subscribers - delivered);
    report(elapsed, used, rest);
}

static long answers;

static void on_pong(struct connection *c, const char *text, size_t size) {
    (void)text, (void)size;
    if (!c->sent_at) return;
    double t = now();
    sample(t - c->sent_at);
    answers++;
    c->sent_at = t;
    ask(c, "ping", "{\"type\":\"ping\",\"requestId\":1}");
}

static void ping_pong(int connections, double seconds, int flooding) {
    char rest[128];
    unsigned char frames[65536];
    size_t size = 0;
    for (int i = 0; i < connections; i++) watch(&all[i]);
    settle(ignore);
    const char *flood = "{\"type\":\"ping\"}";
    while (flooding && size + 64 < sizeof frames) size += make_frame(frames + size, flood, strlen(flood));
    mark("begin");
    double start = now(), used = busy;
    int first = flooding ? 1 : 0;
    for (int i = first; i < connections; i++) {
        all[i].sent_at = now();
        ask(&all[i], "ping", "{\"type\":\"ping\",\"requestId\":1}");
    }
    size_t offset = 0;
    while (now() < start + seconds) {
        if (flooding) {
            ssize_t n = send(all[0].fd, frames + offset, size - offset, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n > 0) offset = (offset + n) % size;
        }
        poll_once(on_pong);
    }
    double elapsed = now() - start;
    used = busy - used;
    mark("end");
    snprintf(rest, sizeof rest, "\"rate\":%.0f", answers / elapsed);
    report(elapsed, used, rest);
}

static void storm(int connections, const char *channel) {
    char json[512], rest[128];
    for (int i = 0; i < connections; i++) watch(&all[i]), all[i].frames = 0;
    snprintf(json, sizeof json, "{\"type\":\"join\",\"channel\":\"%s\",\"requestId\":1}", channel);
    mark("begin");
    double start = now(), used = busy;
    for (int i = 0; i < connections; i++) ask(&all[i], "join", json);
    long expected = connections + (long)connections * (connections - 1) / 2, total = 0;
    while (total < expected && now() < start + 60) {
        poll_once(ignore);
        total = 0;
        for (int i = 0; i < connections; i++) total += all[i].frames;
    }
    double elapsed = now() - start;
    used = busy - used;
    mark("end");
    snprintf(rest, sizeof rest, "\"frames\":%ld,\"lost\":%ld", total, expected - total);
    report(elapsed, used, rest);
}

static void handshakes(double seconds, char **tokens, int count) {
    char rest[64];
    long done = 0;
    mark("begin");
    double start = now(), used = busy;
    while (now() < start + seconds) {
        struct linger reset = {1, 0};
        open_connection(&all[0], tokens[done % count]);
        setsockopt(all[0].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(all[0].fd);
        done++;
    }
    double elapsed = now() - start;
    used = busy - used;
    mark("end");
    snprintf(rest, sizeof rest, "\"rate\":%.0f", done / elapsed);
    report(elapsed, used, rest);
}

static char **read_tokens(const char *file, int *count) {
    char **tokens = calloc(20001, sizeof *tokens), line[4096];
    FILE *in = *file == '-' ? NULL : fopen(file, "r");
    *count = 0;
    while (in && *count < 20000 && fgets(line, sizeof line, in)) {
        char *text = malloc(strlen(line) + 8);
        line[strcspn(line, "\n")] = 0;
        sprintf(text, "token=%s", line);
        tokens[(*count)++] = text;
    }
    if (!*count) tokens[(*count)++] = "";
    return tokens;
}

int main(int argc, char **argv) {
    if (argc != 9) return fprintf(stderr, "see the head of wsload.c\n"), 1;
    mode = argv[1], port = atoi(argv[2]), path = argv[3], dialect = argv[4];
    int connections = atoi(argv[5]), window = atoi(argv[7]), token_count;
    double seconds = atof(argv[6]);
    char **tokens = read_tokens(argv[8], &token_count), channel[64] = "presence-room-1";
    const char *prefix = *argv[8] == '-' ? "public-room" : "presence-room";
    alarm((unsigned)seconds + 120); /* whatever happens, this ends */
    epoll_fd = epoll_create1(0);
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    all = calloc(connections + 1, sizeof *all);
    if (!strcmp(mode, "handshake")) return handshakes(seconds, tokens, token_count), 0;
    int is_fan_out = !strcmp(mode, "fanout") || !strcmp(mode, "latency");
    int total = connections + is_fan_out;
    for (int i = 0; i < total; i++) {
        open_connection(&all[i], tokens[i % token_count]);
        if (is_fan_out) {
            snprintf(channel, sizeof channel, "%s-1", prefix);
            join(&all[i], channel);
        } else if (!strcmp(mode, "hold")) {
            snprintf(channel, sizeof channel, "%s-%d", prefix, i / window);
            join(&all[i], channel);
        }
    }
    if (is_fan_out) fan_out(connections, seconds, window, channel);
    if (!strcmp(mode, "ping")) ping_pong(connections, seconds, 0);
    if (!strcmp(mode, "flood")) ping_pong(connections, seconds, 1);
    if (!strcmp(mode, "storm")) storm(connections, channel);
    if (!strcmp(mode, "hold")) {
        for (int i = 0; i < total; i++) watch(&all[i]);
        settle(ignore);
        mark("begin");
        mark("end");
        puts("{}");
    }
    return 0;
}
