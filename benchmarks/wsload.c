/* wsload: a load client for WebSocket servers that speak the channels protocol.
 *
 * It has one thread and one epoll set. It opens connections to 127.0.0.1, puts one load on the server, measures, checks
 * that no message was lost or came twice, prints one JSON object and ends. An alarm limits its time.
 *
 *   wsload --mode fanout --port 5000 --connections 100 --window 1 --seconds 2 --pid 1234
 *
 * With several --port the connections use these ports in turn.
 *
 * The server speaks JSON text frames: {"type":"join","channel":…} and so on; with --dialect socketio the same
 * objects are Socket.IO events that have the name of their type.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 20000
#define MAX_PIDS 16
#define MAX_PORTS 16
#define MAX_SAMPLES 4000000
#define SCRATCH (1 << 18)
#define STAMP_BASE 100000000000000ull /* keeps the width fixed, and every digit exact in a JavaScript number */
#define SEQUENCE_BASE 100000000ull

typedef enum { FANOUT, RATE, PING, IDLE, CONNECT, STORM, FLOOD } mode_t_;
typedef enum { NEW, CONNECTING, UPGRADING, GREETING, OPEN, JOINING, READY } state_t;
typedef enum { OTHER, CONNECTED, JOINED, MESSAGE, SENT, PONG, MEMBER_JOINED, FAILED } kind_t;

typedef struct {
    int fd;
    state_t state;
    int64_t sequence; /* of the last message seen, -1 before the first */
    uint64_t asked_at;
    unsigned char *rest; /* an incomplete frame */
    size_t rest_size, rest_capacity;
} connection_t;

static const char *MODES[] = {"fanout", "rate", "ping", "idle", "connect", "storm", "flood"};

static struct {
    mode_t_ mode;
    bool socketio;
    const char *path, *channel, *token_file;
    int ports[MAX_PORTS], port_count, connections, window, members, concurrency, payload, timeout;
    double rate, seconds, warmup;
    bool sleeps;
    int pids[MAX_PIDS], pid_count;
} options = {.path = "/ws", .channel = "presence-room", .connections = 10, .window = 1, .concurrency = 64,
             .payload = 100, .timeout = 120, .rate = 10, .seconds = 2, .warmup = 1};

static connection_t *connections;
static int total, epoll_fd;
static char **tokens;
static int token_count;
static unsigned char scratch[SCRATCH];
static uint64_t started_at;

static int ready_count, open_count, begun_count;
static uint64_t published, deliveries, answers, asked, member_events, gaps, errors, received_bytes, receives;
static uint64_t *samples, sample_count;
static bool measuring, loading;

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000ull + (uint64_t)time.tv_nsec;
}

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("wsload: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
    char text[200];
    int size = snprintf(text, sizeof text, "wsload: out of time: %d of %d connections begun, %d open, %d ready, "
                        "%llu deliveries, %llu answers\n", begun_count, total, open_count, ready_count,
                        (unsigned long long)deliveries, (unsigned long long)answers);
    if (write(2, text, (size_t)size) < 0)
        _exit(4);
    _exit(3);
}

/* Figures of the kernel about the server and this process */

static double server_cpu(void)
{
    unsigned long ticks = 0;
    for (int i = 0; i < options.pid_count; i++) {
        char path[64], text[2048];
        snprintf(path, sizeof path, "/proc/%d/stat", options.pids[i]);
        FILE *file = fopen(path, "r");
        if (!file)
            fail("the server's process %d has ended", options.pids[i]);
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        unsigned long user, system;
        char *end = strrchr(text, ')');
        if (end && sscanf(end + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
            ticks += user + system;
    }
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* The seconds for which a core has been busy with any process. */
static double core_busy(int core)
{
    char line[256], name[16];
    unsigned long long user, nice, system;
    double seconds = 0;
    FILE *file = fopen("/proc/stat", "r");
    if (!file)
        fail("/proc/stat: %s", strerror(errno));
    snprintf(name, sizeof name, "cpu%d ", core);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, name, strlen(name)) &&
            sscanf(line + strlen(name), "%llu %llu %llu", &user, &nice, &system) == 3)
            seconds = (double)(user + nice + system) / (double)sysconf(_SC_CLK_TCK);
    fclose(file);
    return seconds;
}

/* The first core that a process may run on: the server and the client are pinned to one each. */
static int core_of(int pid)
{
    cpu_set_t cores;
    int core = 0;
    if (sched_getaffinity(pid, sizeof cores, &cores) == 0)
        while (core < CPU_SETSIZE - 1 && !CPU_ISSET(core, &cores))
            core++;
    return core;
}

static double server_core_busy(void)
{
    return options.pid_count ? core_busy(core_of(options.pids[0])) : 0;
}

static long server_rss_kb(void)
{
    long sum = 0, value;
    for (int i = 0; i < options.pid_count; i++) {
        char path[64], line[256];
        snprintf(path, sizeof path, "/proc/%d/status", options.pids[i]);
        FILE *file = fopen(path, "r");
        if (!file)
            fail("the server's process %d has ended", options.pids[i]);
        while (fgets(line, sizeof line, file))
            if (sscanf(line, "VmRSS: %ld", &value) == 1)
                sum += value;
        fclose(file);
    }
    return sum;
}

static double own_cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Writing */

static void write_all(connection_t *connection, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t sent = send(connection->fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct timespec pause = {0, 20000};
            nanosleep(&pause, NULL);
            continue;
        }
        if (sent < 0)
            fail("send: %s", strerror(errno));
        bytes += sent;
        size -= (size_t)sent;
    }
}

static size_t encode_frame(unsigned char *out, int opcode, const char *payload, size_t size)
{
    static const unsigned char mask[4] = {0x12, 0x34, 0xab, 0xcd};
    size_t head = 2;
    out[0] = (unsigned char)(0x80 | opcode);
    if (size < 126) {
        out[1] = (unsigned char)(0x80 | size);
    } else {
        out[1] = 0x80 | 126;
        out[2] = (unsigned char)(size >> 8);
        out[3] = (unsigned char)size;
        head = 4;
    }
    memcpy(out + head, mask, 4);
    for (size_t i = 0; i < size; i++)
        out[head + 4 + i] = (unsigned char)payload[i] ^ mask[i & 3];
    return head + 4 + size;
}

static void send_text(connection_t *connection, int opcode, const char *text, size_t size)
{
    unsigned char frame[1024];
    if (size > sizeof frame - 8)
        fail("a frame of %zu bytes is more than this client sends", size);
    write_all(connection, frame, encode_frame(frame, opcode, text, size));
}

/* The frame of a request. `fields` are its JSON members without the type, each after a comma. */
static size_t encode_request(unsigned char *out, const char *type, const char *fields)
{
    char text[2048];
    int size;
    if (options.socketio)
        size = snprintf(text, sizeof text, "42[\"%s\",{\"type\":\"%s\"%s}]", type, type, fields);
    else
        size = snprintf(text, sizeof text, "{\"type\":\"%s\"%s}", type, fields);
    if (size < 0 || (size_t)size >= sizeof text)
        fail("a request is too long");
    return encode_frame(out, 1, text, (size_t)size);
}

static void send_request(connection_t *connection, const char *type, const char *fields)
{
    unsigned char frame[4096];
    write_all(connection, frame, encode_request(frame, type, fields));
}

static void channel_of(int index, char *out, size_t size)
{
    if (options.members)
        snprintf(out, size, "%s-%d", options.channel, index / options.members);
    else
        snprintf(out, size, "%s", options.channel);
}

static void join(int index)
{
    char channel[256], fields[300];
    channel_of(index, channel, sizeof channel);
    snprintf(fields, sizeof fields, ",\"channel\":\"%s\"", channel);
    connections[index].state = JOINING;
    send_request(&connections[index], "join", fields);
}

static size_t encode_message(unsigned char *out)
{
    char fields[1536], channel[256];
    channel_of(total - 1, channel, sizeof channel);
    int head = snprintf(fields, sizeof fields, ",\"channel\":\"%s\",\"data\":", channel), size = head;
    size += snprintf(fields + size, sizeof fields - (size_t)size, "{\"seq\":%llu,\"ts\":%llu,\"text\":\"",
                     (unsigned long long)(SEQUENCE_BASE + published),
                     (unsigned long long)(STAMP_BASE + now() - started_at));
    while (size - head < options.payload - 2)
        fields[size++] = 'x';
    memcpy(fields + size, "\"}", 3);
    published++;
    return encode_request(out, "channel:message", fields);
}

static void publish(int count)
{
    static unsigned char frames[1 << 16];
    size_t size = 0;
    while (count-- > 0) {
        size += encode_message(frames + size);
        if (size > sizeof frames - 4096) {
            write_all(&connections[total - 1], frames, size);
            size = 0;
        }
    }
    if (size)
        write_all(&connections[total - 1], frames, size);
}

static void ask(connection_t *connection)
{
    connection->asked_at = now();
    asked++;
    send_request(connection, "ping", "");
}

/* Reading */

static bool joins(void)
{
    return options.mode == FANOUT || options.mode == RATE || options.mode == IDLE || options.mode == STORM;
}

static kind_t kind_of_name(const char *name, size_t size)
{
    if (size < 4)
        return OTHER;
    if (name[0] == 'c' && name[1] == 'o')
        return CONNECTED;
    if (name[0] == 'c' && size > 9)
        return name[8] == 'm' ? MESSAGE : name[8] == 's' ? SENT : name[8] == 'j' ? JOINED : OTHER;
    if (name[0] == 'p' && name[1] == 'o')
        return PONG;
    if (name[0] == 'p' && size > 23)
        return memcmp(name, "presence:member_joined", 22) ? OTHER : MEMBER_JOINED;
    return name[0] == 'e' ? FAILED : OTHER;
}

static kind_t kind_of(const char *text, size_t size)
{
    if (options.socketio)
        return size > 4 && !memcmp(text, "42[\"", 4) ? kind_of_name(text + 4, size - 4) : OTHER;
    if (size > 9 && !memcmp(text, "{\"type\":\"", 9))
        return kind_of_name(text + 9, size - 9);
    const char *type = memmem(text, size, "\"type\":", 7);
    if (!type)
        return OTHER;
    for (type += 7; type < text + size && (*type == ' ' || *type == '"');)
        type++;
    return kind_of_name(type, size - (size_t)(type - text));
}

static void add_sample(uint64_t since)
{
    if (measuring && sample_count < MAX_SAMPLES)
        samples[sample_count++] = now() - since;
}

static void count_delivery(connection_t *connection, const char *text, size_t size)
{
    static size_t hint; /* the number is at the same position in nearly every frame */
    if (hint + 6 > size || memcmp(text + hint, "\"seq\":", 6)) {
        const char *found = memmem(text, size, "\"seq\":", 6);
        if (!found)
            fail("a message without its data: %.*s", (int)(size < 200 ? size : 200), text);
        hint = (size_t)(found - text);
    }
    char *end;
    int64_t sequence = strtoll(text + hint + 6, &end, 10);
    if (connection->sequence >= 0 && sequence != connection->sequence + 1)
        gaps++;
    connection->sequence = sequence;
    deliveries++;
    if (options.mode == RATE) {
        const char *stamp = memmem(end, size - (size_t)(end - text), "\"ts\":", 5);
        if (!stamp)
            fail("a message without its time");
        add_sample(strtoull(stamp + 5, NULL, 10) - STAMP_BASE + started_at);
    }
}

static void opened(connection_t *connection)
{
    connection->state = OPEN;
    open_count++;
    if (joins() && options.mode != STORM)
        join((int)(connection - connections));
    else if (!joins())
        ready_count++, connection->state = READY;
}

static void take_event(connection_t *connection, const char *text, size_t size)
{
    switch (kind_of(text, size)) {
    case CONNECTED:
        if (connection->state == GREETING)
            opened(connection);
        break;
    case JOINED:
        if (connection->state == JOINING)
            connection->state = READY, ready_count++;
        break;
    case MESSAGE:
        count_delivery(connection, text, size);
        break;
    case SENT:
        answers++;
        break;
    case PONG:
        answers++;
        add_sample(connection->asked_at);
        connection->asked_at = 0;
        break;
    case MEMBER_JOINED:
        member_events++;
        break;
    case FAILED:
        if (errors++ < 3)
            fprintf(stderr, "wsload: %.*s\n", (int)(size < 300 ? size : 300), text);
        break;
    case OTHER:
        break;
    }
}

static void take_socketio(connection_t *connection, const char *text, size_t size)
{
    if (size == 1 && text[0] == '2')
        send_text(connection, 1, "3", 1);
    else if (text[0] == '0')
        send_text(connection, 1, "40", 2);
    else if (size >= 2 && text[0] == '4' && text[1] == '0' && connection->state == GREETING)
        opened(connection);
    else
        take_event(connection, text, size);
}

static void take_frame(connection_t *connection, int opcode, const char *payload, size_t size)
{
    if (opcode == 9)
        send_text(connection, 10, payload, size);
    else if (opcode == 8)
        fail("the server closed a connection with %d",
             size >= 2 ? (unsigned char)payload[0] << 8 | (unsigned char)payload[1] : 0);
    else if (opcode == 1 && size && options.socketio)
        take_socketio(connection, payload, size);
    else if (opcode == 1)
        take_event(connection, payload, size);
}

/* The size of the handshake's answer at the start of `data`, or 0 if it is not complete. */
static size_t take_handshake(connection_t *connection, const unsigned char *data, size_t size)
{
    const unsigned char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (!memmem(data, size < 20 ? size : 20, " 101", 4))
        fail("the handshake was refused: %.*s", (int)(size < 400 ? size : 400), data);
    connection->state = GREETING;
    return (size_t)(end - data) + 4;
}

/* Handle the complete frames at the start of `data`, and return their size. */
static size_t take_frames(connection_t *connection, const unsigned char *data, size_t size)
{
    size_t position = 0;
    if (connection->state == UPGRADING && (position = take_handshake(connection, data, size)) == 0)
        return 0;
    while (size - position >= 2) {
        const unsigned char *head = data + position;
        size_t length = head[1] & 127, start = 2;
        if (length == 126)
            start = 4;
        else if (length == 127)
            start = 10;
        if (size - position < start)
            break;
        if (start > 2)
            for (size_t i = length = 0; i < start - 2; i++)
                length = length << 8 | head[2 + i];
        if (head[1] & 0x80 || head[0] & 0x70 || (head[0] & 15) > 10)
            fail("a corrupt frame: %02x %02x", head[0], head[1]);
        if (size - position - start < length)
            break;
        take_frame(connection, head[0] & 15, (const char *)head + start, length);
        position += start + length;
    }
    return position;
}

static void keep_rest(connection_t *connection, const unsigned char *rest, size_t size)
{
    if (size > connection->rest_capacity) {
        connection->rest_capacity = size + 4096;
        connection->rest = realloc(connection->rest, connection->rest_capacity);
    }
    memmove(connection->rest, rest, size);
    connection->rest_size = size;
    if (!size) {
        free(connection->rest);
        connection->rest = NULL;
        connection->rest_capacity = 0;
    }
}

static void on_readable(connection_t *connection)
{
    unsigned char *into = scratch;
    size_t kept = connection->rest_size, room = SCRATCH;
    if (kept) {
        if (connection->rest_capacity < kept + 65536) {
            connection->rest_capacity = 2 * kept + 65536;
            connection->rest = realloc(connection->rest, connection->rest_capacity);
        }
        into = connection->rest;
        room = connection->rest_capacity - kept;
    }
    ssize_t got = recv(connection->fd, into + kept, room, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        fail("a connection ended: %s", got < 0 ? strerror(errno) : "end of file");
    received_bytes += (uint64_t)got;
    receives++;
    size_t size = kept + (size_t)got, taken = take_frames(connection, into, size);
    if (kept || taken < size)
        keep_rest(connection, into + taken, size - taken);
}

/* Connecting */

static void watch(int index, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)index};
    if (epoll_ctl(epoll_fd, operation, connections[index].fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

/* The connections use the ports in turn. */
static int port_of(int index)
{
    return options.ports[index % options.port_count];
}

static void begin(int index)
{
    connection_t *connection = &connections[index];
    int one = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port_of(index))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->sequence = -1;
    connection->state = CONNECTING;
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    watch(index, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void upgrade(int index)
{
    connection_t *connection = &connections[index];
    char request[4096];
    int problem = 0;
    socklen_t size = sizeof problem;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
    if (problem)
        fail("connect: %s", strerror(problem));
    int length = snprintf(request, sizeof request,
                          "GET %s%s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          options.path, !token_count ? "" : strchr(options.path, '?') ? "&token=" : "?token=",
                          token_count ? tokens[index % token_count] : "", port_of(index));
    if (length < 0 || (size_t)length >= sizeof request)
        fail("the path or a token is too long");
    connection->state = UPGRADING;
    write_all(connection, request, (size_t)length);
    watch(index, EPOLL_CTL_MOD, EPOLLIN);
}

static void poll_for(double seconds)
{
    struct epoll_event events[1024];
    if (!options.sleeps && loading)
        seconds = 0;
    struct timespec timeout = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    int count = epoll_pwait2(epoll_fd, events, 1024, &timeout, NULL);
    for (int i = 0; i < count; i++) {
        int index = (int)events[i].data.u32;
        if (connections[index].state == CONNECTING)
            upgrade(index);
        else if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            on_readable(&connections[index]);
    }
}

/* Open all connections, a few at a time, up to the state that the mode needs before its load. */
static double connect_all(void)
{
    uint64_t start = now();
    int *done = options.mode == STORM ? &open_count : &ready_count;
    while (*done < total) {
        while (begun_count < total && begun_count < *done + options.concurrency)
            begin(begun_count++);
        poll_for(0.05);
    }
    return (double)(now() - start) / 1e9;
}

static void say_goodbye(void)
{
    unsigned char frame[16];
    size_t size = encode_frame(frame, 8, "\x03\xe8", 2);
    for (int i = 0; i < total; i++)
        send(connections[i].fd, frame, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    for (int i = 0; i < total; i++)
        shutdown(connections[i].fd, SHUT_WR);
}

/* The report */

static struct {
    uint64_t at, deliveries, answers, published, received_bytes, receives;
    double server_cpu, own_cpu, server_core, own_core;
} mark;

static void set_mark(void)
{
    mark.at = now();
    mark.deliveries = deliveries;
    mark.answers = answers;
    mark.published = published;
    mark.received_bytes = received_bytes;
    mark.receives = receives;
    mark.server_cpu = server_cpu();
    mark.own_cpu = own_cpu();
    mark.server_core = server_core_busy();
    mark.own_core = core_busy(core_of(0));
    measuring = true;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static double quantile_ms(double share)
{
    return sample_count ? (double)samples[(uint64_t)((double)(sample_count - 1) * share)] / 1e6 : 0;
}

static void print_latency(void)
{
    qsort(samples, sample_count, sizeof *samples, compare);
    printf(",\"samples\":%llu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f",
           (unsigned long long)sample_count, quantile_ms(.5), quantile_ms(.99), quantile_ms(.999), quantile_ms(1));
}

/* The shares of the two cores that other programs used since the mark. */
static void print_disturbance(double elapsed)
{
    double server = server_core_busy() - mark.server_core - (server_cpu() - mark.server_cpu);
    double own = core_busy(core_of(0)) - mark.own_core - (own_cpu() - mark.own_cpu);
    printf(",\"server_disturbed\":%.4f,\"client_disturbed\":%.4f", server > 0 ? server / elapsed : 0,
           own > 0 ? own / elapsed : 0);
}

static void print_since_mark(void)
{
    double elapsed = (double)(now() - mark.at) / 1e9, cpu = server_cpu() - mark.server_cpu;
    double delivered = (double)(deliveries - mark.deliveries), answered = (double)(answers - mark.answers);
    double base = delivered > 0 ? delivered : answered;
    measuring = false;
    printf("{\"mode\":\"%s\",\"connections\":%d,\"seconds\":%.3f,\"deliveries_per_s\":%.0f,\"answers_per_s\":%.0f,"
           "\"published_per_s\":%.0f,\"server_cpu\":%.4f,\"client_cpu\":%.4f,\"cpu_s_per_100k\":%.4f,"
           "\"bytes_per_receive\":%.0f",
           MODES[options.mode], total, elapsed, delivered / elapsed, answered / elapsed,
           (double)(published - mark.published) / elapsed, cpu / elapsed, (own_cpu() - mark.own_cpu) / elapsed,
           base > 0 ? cpu * 1e5 / base : 0,
           receives > mark.receives
               ? (double)(received_bytes - mark.received_bytes) / (double)(receives - mark.receives) : 0);
    print_disturbance(elapsed);
}

static void print_end(void)
{
    printf(",\"gaps\":%llu,\"errors\":%llu}\n", (unsigned long long)gaps, (unsigned long long)errors);
    fflush(stdout);
}

/* The loads */

static void settle(double seconds)
{
    for (uint64_t end = now() + (uint64_t)(seconds * 1e9); now() < end;)
        poll_for(0.02);
}

/* Call `step` during the warm-up and during the measurement, and set the mark between them. */
static void run_load(void (*step)(void))
{
    loading = true;
    uint64_t start = now() + (uint64_t)(options.warmup * 1e9), end = start + (uint64_t)(options.seconds * 1e9);
    for (uint64_t time; (time = now()) < end;) {
        if (!measuring && time >= start)
            set_mark();
        step();
    }
    loading = false;
}

static void fanout_step(void)
{
    uint64_t subscribers = (uint64_t)options.connections;
    uint64_t outstanding = published * subscribers - deliveries, most = (uint64_t)options.window * subscribers;
    if (outstanding < most)
        publish((int)((most - outstanding + subscribers - 1) / subscribers));
    poll_for(0.02);
}

static void rate_step(void)
{
    static uint64_t due;
    uint64_t time = now();
    if (!due)
        due = time;
    for (; due <= time; due += (uint64_t)(1e9 / options.rate))
        publish(1);
    poll_for((double)(due - time) / 1e9);
}

static void run_publishing(void (*step)(void))
{
    connect_all();
    settle(0.3);
    run_load(step);
    print_since_mark();
    uint64_t expected = published * (uint64_t)options.connections, deadline = now() + 5000000000ull;
    while ((deliveries < expected || answers < published) && now() < deadline)
        poll_for(0.02);
    settle(0.1); /* a frame that should not come would come now */
    printf(",\"window\":%d,\"rate\":%.0f,\"lost\":%lld,\"unanswered\":%lld", options.window, options.rate,
           (long long)(expected - deliveries), (long long)(published - answers));
    if (options.mode == RATE)
        print_latency();
    print_end();
}

static void ping_step(void)
{
    for (int i = 0; i < total; i++)
        if (!connections[i].asked_at)
            ask(&connections[i]);
    poll_for(0.02);
}

static void run_ping(void)
{
    connect_all();
    run_load(ping_step);
    print_since_mark();
    for (uint64_t deadline = now() + 5000000000ull; answers < asked && now() < deadline;)
        poll_for(0.02);
    printf(",\"lost\":%lld", (long long)(asked - answers));
    print_latency();
    print_end();
}

static void run_idle(void)
{
    long before = server_rss_kb();
    double seconds = connect_all();
    settle(options.seconds);
    long after = server_rss_kb();
    printf("{\"mode\":\"idle\",\"connections\":%d,\"connect_s\":%.3f,\"rss_before_kb\":%ld,\"rss_after_kb\":%ld,"
           "\"kb_per_connection\":%.3f",
           total, seconds, before, after, (double)(after - before) / total);
    print_end();
}

static void run_connect(void)
{
    set_mark();
    double seconds = connect_all(), cpu = server_cpu() - mark.server_cpu;
    printf("{\"mode\":\"connect\",\"connections\":%d,\"connect_s\":%.3f,\"handshakes_per_s\":%.0f,"
           "\"server_cpu\":%.4f,\"client_cpu\":%.4f,\"cpu_s_per_1000\":%.4f",
           total, seconds, total / seconds, cpu / seconds, (own_cpu() - mark.own_cpu) / seconds, cpu * 1000 / total);
    print_disturbance(seconds);
    print_end();
}

static void run_storm(void)
{
    connect_all();
    settle(0.3);
    set_mark();
    for (int i = 0; i < total; i++) {
        join(i);
        if (i % 64 == 63)
            poll_for(0);
    }
    while (ready_count < total)
        poll_for(0.02);
    double joined = (double)(now() - mark.at) / 1e9;
    /* The k-th user who joined gets events about the total - k users who joined later. */
    uint64_t expected = (uint64_t)total * (uint64_t)(total - 1) / 2, deadline = now() + 10000000000ull;
    while (member_events < expected && now() < deadline)
        poll_for(0.02);
    double settled = (double)(now() - mark.at) / 1e9;
    double cpu = server_cpu() - mark.server_cpu, own = own_cpu() - mark.own_cpu;
    printf("{\"mode\":\"storm\",\"connections\":%d,\"joined_s\":%.4f,\"settled_s\":%.4f,\"server_cpu\":%.4f,"
           "\"client_cpu\":%.4f",
           total, joined, settled, cpu / settled, own / settled);
    print_disturbance(settled);
    settle(0.1); /* a frame that should not come would come now */
    printf(",\"member_events\":%llu,\"received_mb\":%.1f,\"lost\":%lld", (unsigned long long)member_events,
           (double)(received_bytes - mark.received_bytes) / 1e6, (long long)(expected - member_events));
    print_end();
}

static unsigned char flood[65536];
static size_t flood_size, flood_position;
static uint64_t flooded_bytes;

/* The first connection plays ping-pong, and the others send pings without end and ignore the answers. */
static void flood_step(void)
{
    if (!connections[0].asked_at)
        ask(&connections[0]);
    struct epoll_event events[16];
    int count = epoll_wait(epoll_fd, events, 16, 20);
    for (int i = 0; i < count; i++)
        if (events[i].data.u32 == 0)
            on_readable(&connections[0]);
    for (int i = 0; i < count; i++) {
        connection_t *connection = &connections[events[i].data.u32];
        if (connection == connections)
            continue;
        if (events[i].events & EPOLLOUT) {
            ssize_t sent = send(connection->fd, flood + flood_position, flood_size - flood_position,
                                MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent < 0 && errno != EAGAIN)
                fail("the flooding connection was ended: %s", strerror(errno));
            if (sent > 0) {
                flooded_bytes += (uint64_t)sent;
                flood_position = (flood_position + (size_t)sent) % flood_size;
            }
        }
        if (events[i].events & EPOLLIN && recv(connection->fd, NULL, 1 << 20, MSG_TRUNC | MSG_DONTWAIT) == 0)
            fail("the flooding connection was ended");
    }
}

static void run_flood(void)
{
    connect_all();
    settle(0.2);
    while (flood_size < sizeof flood - 256)
        flood_size += encode_request(flood + flood_size, "ping", "");
    watch(1, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    run_load(flood_step);
    if (connections[0].asked_at)
        add_sample(connections[0].asked_at); /* it has waited at least this long */
    print_since_mark();
    printf(",\"lost\":%d,\"flooded_mb_per_s\":%.2f", 0, (double)flooded_bytes / 1e6 / (options.seconds + options.warmup));
    print_latency();
    print_end();
}

/* Options */

static void read_tokens(void)
{
    FILE *file = fopen(options.token_file, "r");
    char line[4096];
    if (!file)
        fail("%s: %s", options.token_file, strerror(errno));
    tokens = calloc(MAX_CONNECTIONS, sizeof *tokens);
    while (token_count < MAX_CONNECTIONS && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line)
            tokens[token_count++] = strdup(line);
    }
    fclose(file);
}

static mode_t_ mode_named(const char *name)
{
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(MODES[i], name))
            return (mode_t_)i;
    fail("no mode %s", name);
    return FANOUT;
}

static void set_option(int option, const char *value)
{
    switch (option) {
    case 'm': options.mode = mode_named(value); break;
    case 'D': options.socketio = !strcmp(value, "socketio"); break;
    case 'p':
        if (options.port_count < MAX_PORTS)
            options.ports[options.port_count++] = atoi(value);
        break;
    case 'P': options.path = value; break;
    case 'n': options.connections = atoi(value); break;
    case 'w': options.window = atoi(value); break;
    case 'r': options.rate = atof(value); break;
    case 's': options.seconds = atof(value); break;
    case 'u': options.warmup = atof(value); break;
    case 'c': options.channel = value; break;
    case 'k': options.members = atoi(value); break;
    case 'j': options.concurrency = atoi(value); break;
    case 'b': options.payload = atoi(value); break;
    case 'S': options.sleeps = true; break;
    case 'T': options.token_file = value; break;
    case 't': options.timeout = atoi(value); break;
    case 'i':
        if (options.pid_count < MAX_PIDS)
            options.pids[options.pid_count++] = atoi(value);
        break;
    default: exit(2);
    }
}

static void parse_options(int count, char **values)
{
    static const struct option names[] = {
        {"mode", 1, 0, 'm'}, {"dialect", 1, 0, 'D'}, {"port", 1, 0, 'p'}, {"path", 1, 0, 'P'},
        {"connections", 1, 0, 'n'}, {"window", 1, 0, 'w'}, {"rate", 1, 0, 'r'}, {"seconds", 1, 0, 's'},
        {"warmup", 1, 0, 'u'}, {"channel", 1, 0, 'c'}, {"members", 1, 0, 'k'}, {"concurrency", 1, 0, 'j'},
        {"payload", 1, 0, 'b'}, {"tokens", 1, 0, 'T'}, {"sleeps", 0, 0, 'S'}, {"timeout", 1, 0, 't'}, {"pid", 1, 0, 'i'}, {0, 0, 0, 0},
    };
    for (int option; (option = getopt_long(count, values, "", names, NULL)) != -1;)
        set_option(option, optarg);
    if (!options.port_count || options.connections < 1 || options.connections >= MAX_CONNECTIONS || options.payload > 1000 ||
        options.window < 1 || options.window > 1024 || options.rate <= 0 || options.seconds > 600 ||
        options.warmup > 60 || options.timeout < 1 || options.timeout > 900)
        fail("an option is out of range");
}

int main(int count, char **values)
{
    parse_options(count, values);
    signal(SIGALRM, on_alarm);
    alarm((unsigned)options.timeout);
    if (options.token_file)
        read_tokens();
    total = options.connections + (options.mode == FANOUT || options.mode == RATE);
    if (options.mode == FLOOD)
        total = 2;
    connections = calloc((size_t)total, sizeof *connections);
    samples = calloc(MAX_SAMPLES, sizeof *samples);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    started_at = now();
    switch (options.mode) {
    case FANOUT: run_publishing(fanout_step); break;
    case RATE: run_publishing(rate_step); break;
    case PING: run_ping(); break;
    case IDLE: run_idle(); break;
    case CONNECT: run_connect(); break;
    case STORM: run_storm(); break;
    case FLOOD: run_flood(); break;
    }
    say_goodbye();
    return 0;
}
