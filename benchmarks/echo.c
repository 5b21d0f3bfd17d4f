/* What an echo server costs without an event loop and without Python: one epoll, one buffer, one thread.
 *
 *     cc -O2 -o echo echo.c && ./echo tcp|udp|unix|discard|flood ADDRESS [CPU] [batch]
 *
 * tcp and unix echo streams, udp datagrams; discard reads a stream, flood writes one. ADDRESS is a port of 127.0.0.1 (0
 * picks a free one) or a path. Prints `listening on ADDRESS` once it accepts, and serves until it is killed.
 *
 * It is level-triggered, receives 256 KiB at most, sends at once, and waits for room where the peer does not read: the
 * calls of the plainest loop that is right. It is the limit to compare with, not a target of its own tuning.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024, EVENTS = 1024, BACKLOG = 4096 };

/* What a peer that does not read has not been sent yet. */
struct connection {
    int fd;
    char *rest;
    size_t length;
};

static char buffer[BUFFER];
static int poller;
static bool floods, discards;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void watch(struct connection *connection, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0) fail("epoll_ctl");
}

static void drop(struct connection *connection) {
    close(connection->fd);
    free(connection->rest);
    free(connection);
}

/* Sends, and keeps what the socket does not take; whether the connection is still there. */
static bool send_or_keep(struct connection *connection, const char *data, size_t length) {
    ssize_t sent = send(connection->fd, data, length, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) return false;
        sent = 0;
    }
    if ((size_t)sent == length) return true;
    connection->length = length - (size_t)sent;
    connection->rest = malloc(connection->length);
    if (connection->rest == NULL) fail("malloc");
    memcpy(connection->rest, data + sent, connection->length);
    watch(connection, EPOLL_CTL_MOD, EPOLLOUT);
    return true;
}

static bool readable(struct connection *connection) {
    ssize_t length = recv(connection->fd, buffer, BUFFER, 0);
    if (length < 0) return errno == EAGAIN;
    if (length == 0) return false;
    return discards || send_or_keep(connection, buffer, (size_t)length);
}

static bool writable(struct connection *connection) {
    if (floods) {
        ssize_t sent = send(connection->fd, buffer, 64 * 1024, MSG_NOSIGNAL);
        return sent >= 0 || errno == EAGAIN;
    }
    char *rest = connection->rest;
    size_t length = connection->length;
    connection->rest = NULL;
    connection->length = 0;
    watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    bool open = send_or_keep(connection, rest, length);
    free(rest);
    return open;
}

static void accept_all(int listener, bool tcp) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        int on = 1;
        if (tcp && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) fail("TCP_NODELAY");
        struct connection *connection = calloc(1, sizeof *connection);
        if (connection == NULL) fail("calloc");
        connection->fd = fd;
        watch(connection, EPOLL_CTL_ADD, floods ? EPOLLOUT : EPOLLIN);
    }
}

static void echo_datagrams(int fd) {
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    ssize_t length = recvfrom(fd, buffer, BUFFER, 0, (struct sockaddr *)&from, &size);
    if (length >= 0 && sendto(fd, buffer, (size_t)length, 0, (struct sockaddr *)&from, size) < 0 && errno != EAGAIN)
        fail("sendto");
}

static int bound(const char *kind, const char *address) {
    bool local = strcmp(kind, "unix") == 0;
    int type = (strcmp(kind, "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(local ? AF_UNIX : AF_INET, type, 0);
    if (fd < 0) fail("socket");
    if (local) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        snprintf(name.sun_path, sizeof name.sun_path, "%s", address);
        if (bind(fd, (struct sockaddr *)&name, sizeof name) < 0) fail("bind");
        printf("listening on %s\n", address);
    } else {
        struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(address))};
        name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof name;
        int on = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&name, size) < 0) fail("bind");
        if (getsockname(fd, (struct sockaddr *)&name, &size) < 0) fail("getsockname");
        printf("listening on 127.0.0.1:%d\n", ntohs(name.sin_port));
    }
    if (strcmp(kind, "udp") != 0 && listen(fd, BACKLOG) < 0) fail("listen");
    return fd;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: echo tcp|udp|unix|discard|flood ADDRESS [CPU] [batch]\n");
        return 2;
    }
    const char *kind = argv[1];
    bool udp = strcmp(kind, "udp") == 0, tcp = !udp && strcmp(kind, "unix") != 0;
    floods = strcmp(kind, "flood") == 0;
    discards = strcmp(kind, "discard") == 0;
    if (argc > 3) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(atoi(argv[3]), &cpus);
        if (sched_setaffinity(0, sizeof cpus, &cpus) < 0) fail("sched_setaffinity");
    }
    if (argc > 4) {
        struct sched_param param = {0};
        if (sched_setscheduler(0, SCHED_BATCH, &param) < 0) fail("sched_setscheduler");
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) fail("epoll_create1");
    struct connection listener = {.fd = bound(kind, argv[2])};
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
    fflush(stdout);
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == &listener) {
                if (udp) echo_datagrams(listener.fd);
                else accept_all(listener.fd, tcp);
                continue;
            }
            bool open = events[i].events & EPOLLOUT ? writable(connection) : readable(connection);
            if (!open) drop(connection);
        }
    }
}
