/* What an application does with ZooKeeper's C library, against the hosts of the first argument. Prints what each step led to,
 * without what differs from one ensemble to the next (session ids, zxids, times), so that two ensembles can be compared by it.
 *
 * The line "kill leader" asks for that; a line comes back when the ensemble serves again.
 *
 *   cc -DTHREADED tour.c -lzookeeper_mt -lpthread -o tour
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define PATIENCE 60

static const char *hosts;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
/* The events so far, one a line. */
static char events[65536];
static int event_count;

static void note(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh;
    /* The state of the connection is no event of a znode. */
    if (type == ZOO_SESSION_EVENT) return;
    pthread_mutex_lock(&guard);
    size_t length = strlen(events);
    snprintf(events + length, sizeof events - length, "event %s: type %d state %d %s\n", (const char *)context, type, state, path);
    event_count++;
    pthread_mutex_unlock(&guard);
}

static void give_up(const char *what) {
    fprintf(stderr, "it never happens: %s\n", what);
    exit(1);
}

/* Waits for so many events, and prints them. */
static void saw(int count) {
    for (int tries = 0; tries < PATIENCE * 100; tries++) {
        pthread_mutex_lock(&guard);
        if (event_count >= count) {
            fputs(events, stdout);
            events[0] = 0;
            event_count = 0;
            pthread_mutex_unlock(&guard);
            return;
        }
        pthread_mutex_unlock(&guard);
        usleep(10000);
    }
    give_up("events");
}

static void ignore(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh, (void)type, (void)state, (void)path, (void)context;
}

static zhandle_t *open_session(const clientid_t *id) {
    zhandle_t *zh = zookeeper_init(hosts, ignore, 15000, id, NULL, 0);
    for (int tries = 0; tries < PATIENCE * 100; tries++) {
        if (zoo_state(zh) == ZOO_CONNECTED_STATE || zoo_state(zh) == ZOO_EXPIRED_SESSION_STATE) return zh;
        usleep(10000);
    }
    give_up("a session");
    return NULL;
}

static const char *bits(const struct Stat *s) {
    static char text[200];
    snprintf(text, sizeof text, "v%d c%d a%d length %d children %d ephemeral %d made==set %d made==listed %d", s->version, s->cversion,
             s->aversion, s->dataLength, s->numChildren, s->ephemeralOwner != 0, s->czxid == s->mzxid, s->czxid == s->pzxid);
    return text;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void names(const char *what, int rc, struct String_vector *list) {
    printf("%s: %d [", what, rc);
    if (rc == ZOK) {
        qsort(list->data, (size_t)list->count, sizeof *list->data, by_name);
        for (int i = 0; i < list->count; i++) printf("%s%s", i ? " " : "", list->data[i]);
        deallocate_String_vector(list);
    }
    printf("]\n");
}

static void show(const char *what, zhandle_t *zh, const char *path) {
    char data[1024];
    int length = sizeof data;
    struct Stat stat;
    int rc = zoo_get(zh, path, 0, data, &length, &stat);
    if (rc == ZOK)
        printf("%s: %.*s (%d) %s\n", what, length < 0 ? 0 : length, data, length, bits(&stat));
    else
        printf("%s: %d\n", what, rc);
}

static void basics(zhandle_t *zh) {
    char path[1024], data[1024];
    struct Stat stat;
    struct String_vector list;
    int rc = zoo_create(zh, "/c", "x", 1, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path);
    printf("create: %d %s\n", rc, path);
    show("get", zh, "/c");
    printf("create again: %d\n", zoo_create(zh, "/c", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    printf("create below nothing: %d\n", zoo_create(zh, "/none/a", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    printf("create without a list: %d\n", zoo_create(zh, "/d", "", 0, NULL, 0, NULL, 0));
    rc = zoo_create2(zh, "/c/s-", "one", 3, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL, path, sizeof path, &stat);
    printf("sequential: %d %s %s\n", rc, path, bits(&stat));
    rc = zoo_create2(zh, "/c/s-", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL_SEQUENTIAL, path, sizeof path, &stat);
    printf("without a value: %d %s %s\n", rc, path, bits(&stat));
    show("no value", zh, path);
    printf("below an ephemeral: %d\n", zoo_create(zh, "/c/s-0000000001/a", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    printf("container: %d\n", zoo_create(zh, "/c/k", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, NULL, 0));
    printf("ttl: %d\n", zoo_create_ttl(zh, "/c/ttl", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 600000, NULL, 0));
    printf("no ttl: %d\n", zoo_create_ttl(zh, "/c/ttl2", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, -1, NULL, 0));
    rc = zoo_set2(zh, "/c", "yy", 2, 0, &stat);
    printf("set: %d %s\n", rc, bits(&stat));
    printf("set with an old version: %d\n", zoo_set(zh, "/c", "z", 1, 0));
    printf("set nothing: %d\n", zoo_set(zh, "/none", "z", 1, -1));
    rc = zoo_exists(zh, "/c", 0, &stat);
    printf("exists: %d %s\n", rc, bits(&stat));
    printf("exists not: %d\n", zoo_exists(zh, "/none", 0, &stat));
    rc = zoo_get_children(zh, "/c", 0, &list);
    names("children", rc, &list);
    rc = zoo_get_children2(zh, "/c", 0, &list, &stat);
    names("children again", rc, &list);
    printf("their parent: %s\n", bits(&stat));
    int length = 1;
    rc = zoo_get(zh, "/c", 0, data, &length, &stat);
    printf("into a short buffer: %d %d\n", rc, length);
    printf("delete with children: %d\n", zoo_delete(zh, "/c", -1));
    printf("delete with an old version: %d\n", zoo_delete(zh, "/c/s-0000000000", 7));
    printf("delete nothing: %d\n", zoo_delete(zh, "/none", -1));
    const char *bad[] = {"", "c", "/c/", "/c//a", "/c/./a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        printf("create %s: %d\n", bad[i], zoo_create(zh, bad[i], "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
}

static void multi_part(int i, const zoo_op_result_t *result) {
    printf("part %d: %d %s\n", i, result->err, result->err == ZOK && result->value ? result->value : "");
}

static void multis(zhandle_t *zh) {
    char first[100] = "", second[100] = "";
    struct Stat stat;
    zoo_op_t ops[4];
    zoo_op_result_t results[4];
    memset(results, 0, sizeof results);
    zoo_create_op_init(&ops[0], "/m", "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, first, sizeof first);
    zoo_check_op_init(&ops[1], "/m", 0);
    zoo_set_op_init(&ops[2], "/m", "2", 1, 0, &stat);
    zoo_create_op_init(&ops[3], "/m/q-", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL, second, sizeof second);
    printf("multi: %d\n", zoo_multi(zh, 4, ops, results));
    for (int i = 0; i < 4; i++) multi_part(i, &results[i]);
    printf("names: %s %s; %s\n", first, second, bits(&stat));
    memset(results, 0, sizeof results);
    zoo_delete_op_init(&ops[0], "/m/q-0000000000", -1);
    zoo_check_op_init(&ops[1], "/m", 7);
    zoo_delete_op_init(&ops[2], "/m", -1);
    printf("multi that fails: %d\n", zoo_multi(zh, 3, ops, results));
    for (int i = 0; i < 3; i++) multi_part(i, &results[i]);
    printf("nothing of it is done: %d\n", zoo_exists(zh, "/m/q-0000000000", 0, &stat));
}

static void watches(zhandle_t *zh, zhandle_t *other) {
    char data[100];
    int length = sizeof data;
    struct Stat stat;
    struct String_vector list;
    printf("watch nothing: %d\n", zoo_wexists(zh, "/w", note, "exists", &stat));
    printf("made: %d\n", zoo_create(other, "/w", "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    saw(1);
    printf("watch the value: %d\n", zoo_wget(zh, "/w", note, "get", data, &length, &stat));
    printf("set: %d\n", zoo_set(other, "/w", "2", 1, -1));
    saw(1);
    int rc = zoo_wget_children(zh, "/w", note, "list", &list);
    names("watch the children", rc, &list);
    printf("a child: %d\n", zoo_create(other, "/w/a", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    saw(1);
    length = sizeof data;
    printf("watch a value: %d\n", zoo_wget(zh, "/w/a", note, "child", data, &length, &stat));
    rc = zoo_wget_children2(zh, "/w/a", note, "list of the child", &list, &stat);
    names("watch its children", rc, &list);
    printf("the child is deleted: %d\n", zoo_delete(other, "/w/a", -1));
    saw(2);
    length = sizeof data;
    printf("watch again: %d\n", zoo_wget(zh, "/w", note, "removed", data, &length, &stat));
    printf("no more: %d\n", zoo_remove_watches(zh, "/w", ZWATCHTYPE_DATA, note, "removed", 0));
    printf("no such watch: %d\n", zoo_remove_watches(zh, "/w", ZWATCHTYPE_CHILD, note, "removed", 0));
}

static pthread_mutex_t proof = PTHREAD_MUTEX_INITIALIZER;
static int proven;

static void proven_by(int rc, const void *data) {
    pthread_mutex_lock(&proof);
    printf("%s: %d\n", (const char *)data, rc);
    proven++;
    pthread_mutex_unlock(&proof);
}

static void prove(zhandle_t *zh, const char *who, int so_far) {
    int rc = zoo_add_auth(zh, "digest", who, (int)strlen(who), proven_by, "proven");
    if (rc != ZOK) give_up("an identity");
    for (int tries = 0; tries < PATIENCE * 100; tries++) {
        pthread_mutex_lock(&proof);
        int now = proven;
        pthread_mutex_unlock(&proof);
        if (now > so_far) return;
        usleep(10000);
    }
    give_up("an answer to an identity");
}

static void access_lists(zhandle_t *zh, zhandle_t *other) {
    struct ACL_vector acl;
    struct Stat stat;
    prove(zh, "ann:x", 0);
    printf("mine: %d\n", zoo_create(zh, "/a", "mine", 4, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    int rc = zoo_get_acl(zh, "/a", &acl, &stat);
    printf("list: %d", rc);
    for (int i = 0; rc == ZOK && i < acl.count; i++)
        printf(" %d %s:%s", acl.data[i].perms, acl.data[i].id.scheme, acl.data[i].id.id);
    printf("\n");
    printf("without rights: %d\n", zoo_set(other, "/a", "", 0, -1));
    printf("nobody: %d\n", zoo_create(other, "/a2", "", 0, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    printf("read by all: %d\n", zoo_set_acl(zh, "/a", 0, &ZOO_READ_ACL_UNSAFE));
    printf("an old version of the list: %d\n", zoo_set_acl(zh, "/a", 0, &ZOO_OPEN_ACL_UNSAFE));
    printf("delete: %d\n", zoo_delete(zh, "/a", -1));
}

/* The library calls back on one thread. */
static int answers, last_rc, in_order = 1, next_answer;

static void answered(int rc, const struct Stat *stat, const void *data) {
    (void)stat;
    pthread_mutex_lock(&guard);
    if ((long)data != next_answer++) in_order = 0;
    last_rc = rc;
    answers++;
    pthread_mutex_unlock(&guard);
}

static void pipelined(zhandle_t *zh) {
    printf("p: %d\n", zoo_create(zh, "/p", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    for (long i = 0; i < 2000; i++)
        if (zoo_aset(zh, "/p", "value", 5, -1, answered, (void *)i) != ZOK) give_up("a pipelined set");
    for (int tries = 0; tries < PATIENCE * 100; tries++) {
        pthread_mutex_lock(&guard);
        int now = answers;
        pthread_mutex_unlock(&guard);
        if (now == 2000) break;
        usleep(10000);
    }
    printf("pipelined: %d answers, in order %d, the last one %d\n", answers, in_order, last_rc);
    show("at the end", zh, "/p");
}

/* Until it is known, as the connection may be lost. */
static int retried_set(zhandle_t *zh, const char *path, const char *value) {
    for (int tries = 0; tries < PATIENCE * 10; tries++) {
        int rc = zoo_set(zh, path, value, (int)strlen(value), -1);
        if (rc != ZCONNECTIONLOSS && rc != ZOPERATIONTIMEOUT) return rc;
        usleep(100000);
    }
    give_up("a set");
    return -1;
}

static void sessions(zhandle_t *other) {
    struct Stat stat;
    zhandle_t *zh = open_session(NULL);
    printf("ephemeral: %d\n", zoo_create(zh, "/e", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
    printf("p: %d\n", zoo_create(zh, "/f", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    clientid_t id = *zoo_client_id(zh);
    for (int kills = 0; kills < 2; kills++) {
        printf("kill leader\n");
        fflush(stdout);
        char line[16];
        if (!fgets(line, sizeof line, stdin)) give_up("a kill");
        for (int n = 0; n < 50; n++) {
            int rc = retried_set(zh, "/f", "x");
            if (rc != ZOK) printf("set: %d\n", rc);
        }
    }
    int rc;
    while ((rc = zoo_exists(zh, "/e", 0, &stat)) == ZCONNECTIONLOSS) usleep(100000);
    printf("the ephemeral of the session: %d %d\n", rc, stat.ephemeralOwner == zoo_client_id(zh)->client_id);
    printf("the same session: %d\n", id.client_id == zoo_client_id(zh)->client_id);
    /* Taken up by another connection, and closed there; again, if its own client takes it back before that. */
    int taken = 0;
    for (int tries = 0; zoo_state(zh) != ZOO_EXPIRED_SESSION_STATE; tries++) {
        if (tries > PATIENCE) give_up("the end of the session");
        zhandle_t *thief = open_session(&id);
        if (zoo_state(thief) == ZOO_CONNECTED_STATE && zoo_client_id(thief)->client_id == id.client_id) taken = 1;
        zookeeper_close(thief);
        for (int waits = 0; waits < 100 && zoo_state(zh) != ZOO_EXPIRED_SESSION_STATE; waits++) usleep(10000);
    }
    printf("taken up: %d\n", taken);
    printf("expired: %d\n", zoo_set(zh, "/f", "x", 1, -1));
    zookeeper_close(zh);
    zhandle_t *late = open_session(&id);
    printf("taken up too late: %d\n", zoo_state(late) == ZOO_EXPIRED_SESSION_STATE);
    zookeeper_close(late);
    while ((rc = zoo_exists(other, "/e", 0, &stat)) == ZCONNECTIONLOSS || rc == ZOK) usleep(100000);
    printf("its ephemeral: %d\n", rc);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: tour HOSTS\n");
        return 2;
    }
    hosts = argv[1];
    alarm(240);
    zoo_set_debug_level(0);
    zhandle_t *zh = open_session(NULL), *other = open_session(NULL);
    basics(zh);
    multis(zh);
    watches(zh, other);
    access_lists(zh, other);
    pipelined(zh);
    sessions(other);
    printf("closed: %d %d\n", zookeeper_close(zh), zookeeper_close(other));
    return 0;
}
