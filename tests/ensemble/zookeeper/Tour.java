// What an application does with Curator, against the hosts of the first argument. Prints what each step led to, without
// what differs from one ensemble to the next (session ids, zxids, times), so that two ensembles can be compared by it.
//
// The line "kill leader" asks for that; a line comes back when the ensemble serves again.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicInteger;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.atomic.PromotedToLock;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.NodeCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.TreeCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.leader.Participant;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.queue.DistributedDelayQueue;
import org.apache.curator.framework.recipes.queue.DistributedPriorityQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.SharedValue;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

@SuppressWarnings("deprecation") // Applications that move have the older recipes, too.
public class Tour {
    static final int PATIENCE = 60;
    static final BufferedReader IN = new BufferedReader(new InputStreamReader(System.in));
    static final ExecutorService THREADS = Executors.newCachedThreadPool();
    static String hosts;

    interface Part {
        void run(CuratorFramework zk) throws Exception;
    }

    interface Work {
        void run() throws Exception;
    }

    interface Holds {
        boolean now() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        hosts = args[0];
        Thread limit = new Thread(() -> {
            pause(300_000);
            System.err.println("the tour takes too long");
            Thread.getAllStackTraces().forEach((thread, trace) -> System.err.println(thread + " " + Arrays.toString(trace)));
            Runtime.getRuntime().halt(3);
        });
        limit.setDaemon(true);
        limit.start();
        part("basics", Tour::basics);
        part("access", Tour::access);
        part("transactions", Tour::transactions);
        part("latches", Tour::latches);
        part("selectors", Tour::selectors);
        part("mutexes", Tour::mutexes);
        part("readers and writers", Tour::readersAndWriters);
        part("semaphores", Tour::semaphores);
        part("barriers", Tour::barriers);
        part("queues", Tour::queues);
        part("counters", Tour::counters);
        part("nodes", Tour::nodes);
        part("caches", Tour::caches);
        part("watchers", Tour::watchers);
        part("lost session", Tour::lost);
        part("failover", Tour::failover);
        System.exit(0);
    }

    static void part(String name, Part part) throws Exception {
        System.out.println("== " + name);
        try (CuratorFramework zk = client()) {
            part.run(zk);
        }
    }

    static CuratorFramework client(String... user) {
        CuratorFrameworkFactory.Builder builder = CuratorFrameworkFactory.builder().connectString(hosts)
            .sessionTimeoutMs(20_000).connectionTimeoutMs(20_000).retryPolicy(new ExponentialBackoffRetry(100, 12, 3_000));
        if (user.length > 0) builder.authorization("digest", bytes(user[0]));
        CuratorFramework zk = builder.build();
        zk.start();
        try {
            if (!zk.blockUntilConnected(PATIENCE, TimeUnit.SECONDS)) throw new IllegalStateException("not connected");
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
        return zk;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] data) {
        return data == null ? "null" : new String(data, StandardCharsets.UTF_8);
    }

    static void say(String what, Object value) {
        System.out.println(what + ": " + value);
    }

    static void pause(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    static void eventually(String what, Holds holds) throws Exception {
        long end = System.nanoTime() + PATIENCE * 1_000_000_000L;
        while (!holds.now()) {
            if (System.nanoTime() > end) throw new IllegalStateException("it never happens: " + what);
            pause(20);
        }
    }

    static String fails(Work work) {
        try {
            work.run();
            return "nothing";
        } catch (KeeperException e) {
            return e.code() + " " + e.getPath();
        } catch (Exception e) {
            return e.getClass().getSimpleName();
        }
    }

    static String show(Stat s) {
        if (s == null) return "null";
        return "v" + s.getVersion() + " c" + s.getCversion() + " a" + s.getAversion() + " length " + s.getDataLength()
            + " children " + s.getNumChildren() + " ephemeral " + (s.getEphemeralOwner() > 0)
            + " made==set " + (s.getCzxid() == s.getMzxid()) + " made==listed " + (s.getCzxid() == s.getPzxid());
    }

    static List<String> children(CuratorFramework zk, String path) throws Exception {
        return new ArrayList<>(new TreeSet<>(zk.getChildren().forPath(path)));
    }

    /** Without the number that withProtection puts in front. */
    static String unprotected(String path) {
        return path.replaceAll("_c_[-0-9a-f]{36}-", "PROTECTED-");
    }

    /** Runs work with so many clients at once. */
    interface Task {
        void run(CuratorFramework zk, int n) throws Exception;
    }

    static void sideBySide(int count, Task task) throws Exception {
        List<Future<?>> all = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            int number = n;
            Callable<Void> run = () -> {
                try (CuratorFramework zk = client()) {
                    task.run(zk, number);
                }
                return null;
            };
            all.add(THREADS.submit(run));
        }
        for (Future<?> one : all) one.get(3 * PATIENCE, TimeUnit.SECONDS);
    }

    static void basics(CuratorFramework zk) throws Exception {
        say("create", zk.create().forPath("/b", bytes("x")));
        Stat stat = new Stat();
        say("get", text(zk.getData().storingStatIn(stat).forPath("/b")));
        say("stat", show(stat));
        say("create again", fails(() -> zk.create().forPath("/b")));
        say("create below nothing", fails(() -> zk.create().forPath("/none/a")));
        say("exists", show(zk.checkExists().forPath("/b")));
        say("exists not", zk.checkExists().forPath("/none"));
        say("set", show(zk.setData().withVersion(0).forPath("/b", bytes("yy"))));
        say("set with an old version", fails(() -> zk.setData().withVersion(0).forPath("/b", bytes("z"))));
        say("get nothing", fails(() -> zk.getData().forPath("/none")));
        say("with parents", zk.create().creatingParentsIfNeeded().forPath("/b/c/d/e", bytes("")));
        say("sequential", zk.create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath("/b/s-"));
        say("in containers", zk.create().creatingParentContainersIfNeeded().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/b/k/l/e-"));
        say("below an ephemeral", fails(() -> zk.create().forPath("/b/k/l/e-0000000000/a")));
        say("container", show(zk.checkExists().forPath("/b/k")));
        say("protected", unprotected(zk.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/b/p-")));
        say("or set", zk.create().orSetData().forPath("/b", bytes("z")));
        say("idempotent create", zk.create().idempotent().forPath("/b/i", bytes("1")) + zk.create().idempotent().forPath("/b/i", bytes("1")));
        Stat made = new Stat();
        say("with its stat", zk.create().storingStatIn(made).forPath("/b/stat", bytes("abc")) + " " + show(made));
        say("ttl", zk.create().withTtl(600_000).withMode(CreateMode.PERSISTENT_WITH_TTL).forPath("/b/ttl"));
        say("ttl sequential", zk.create().withTtl(600_000).withMode(CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL).forPath("/b/ttl-"));
        zk.create().compressed().forPath("/b/z", bytes("compressed ".repeat(100)));
        say("compressed", zk.getData().decompressed().forPath("/b/z").length);
        CountDownLatch answered = new CountDownLatch(2);
        StringBuffer background = new StringBuffer();
        zk.getData().inBackground((c, e) -> {
            background.append(e.getType() + " " + e.getResultCode() + " " + text(e.getData()));
            answered.countDown();
        }).forPath("/b");
        zk.sync().inBackground((c, e) -> {
            background.append("; " + e.getType() + " " + e.getResultCode() + " " + e.getPath());
            answered.countDown();
        }).forPath("/b");
        say("answered in the background", answered.await(PATIENCE, TimeUnit.SECONDS) + " " + background);
        CuratorFramework below = zk.usingNamespace("b/c");
        say("in a namespace", below.create().forPath("/f") + " " + children(below, "/"));
        say("children", unprotected(children(zk, "/b").toString()));
        say("all children", zk.getZookeeperClient().getZooKeeper().getAllChildrenNumber("/b"));
        say("ephemerals", zk.getZookeeperClient().getZooKeeper().getEphemerals("/b").stream().map(Tour::unprotected).sorted().collect(Collectors.toList()));
        say("delete with children", fails(() -> zk.delete().forPath("/b")));
        say("delete nothing", fails(() -> zk.delete().forPath("/none")));
        say("delete nothing quietly", fails(() -> zk.delete().quietly().forPath("/none")));
        zk.delete().guaranteed().deletingChildrenIfNeeded().forPath("/b");
        say("deleted", zk.checkExists().forPath("/b"));
    }

    static void access(CuratorFramework zk) throws Exception {
        try (CuratorFramework ann = client("ann:x")) {
            ann.create().withACL(ZooDefs.Ids.CREATOR_ALL_ACL).forPath("/acl", bytes("mine"));
            say("list", ann.getACL().forPath("/acl"));
            zk.sync().forPath("/acl");
            say("get without rights", fails(() -> zk.getData().forPath("/acl")));
            say("set without rights", fails(() -> zk.setData().forPath("/acl", bytes(""))));
            say("create below without rights", fails(() -> zk.create().forPath("/acl/a")));
            say("no identity", fails(() -> zk.create().withACL(ZooDefs.Ids.CREATOR_ALL_ACL).forPath("/acl2")));
            say("set the list", show(ann.setACL().withACL(ZooDefs.Ids.READ_ACL_UNSAFE).forPath("/acl")));
            zk.sync().forPath("/acl");
            say("get with rights", text(zk.getData().forPath("/acl")));
            say("set the list without rights", fails(() -> ann.setACL().withACL(ZooDefs.Ids.OPEN_ACL_UNSAFE).forPath("/acl")));
            zk.delete().forPath("/acl");
        }
    }

    static void transactions(CuratorFramework zk) throws Exception {
        List<CuratorTransactionResult> results = zk.transaction().forOperations(
            zk.transactionOp().create().forPath("/t", bytes("1")),
            zk.transactionOp().check().withVersion(0).forPath("/t"),
            zk.transactionOp().setData().forPath("/t", bytes("2")),
            zk.transactionOp().create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath("/t/q-", bytes("")),
            zk.transactionOp().create().withMode(CreateMode.EPHEMERAL).forPath("/t/e", bytes("")),
            zk.transactionOp().delete().forPath("/t/e"));
        for (CuratorTransactionResult r : results) {
            say("part", r.getType() + " " + r.getForPath() + " " + r.getResultPath() + " " + show(r.getResultStat()) + " " + r.getError());
        }
        try {
            zk.transaction().forOperations(
                zk.transactionOp().delete().forPath("/t/q-0000000000"),
                zk.transactionOp().check().withVersion(7).forPath("/t"),
                zk.transactionOp().delete().forPath("/t"));
        } catch (KeeperException e) {
            List<String> parts = e.getResults().stream().map(r -> r.getType() + " " + ((OpResult.ErrorResult) r).getErr()).collect(Collectors.toList());
            say("fails", e.code() + " " + parts);
        }
        say("nothing of it is done", children(zk, "/t"));
        zk.delete().deletingChildrenIfNeeded().forPath("/t");
    }

    static void latches(CuratorFramework zk) throws Exception {
        List<CuratorFramework> clients = new ArrayList<>();
        List<LeaderLatch> latches = new ArrayList<>();
        for (int n = 0; n < 3; n++) {
            int count = n + 1;
            clients.add(client());
            latches.add(new LeaderLatch(clients.get(n), "/latch", "id" + n));
            latches.get(n).start();
            eventually("all take part", () -> latches.get(0).getParticipants().size() == count);
        }
        for (int n = 0; n < 3; n++) {
            LeaderLatch next = latches.get(n);
            say("leads", next.await(PATIENCE, TimeUnit.SECONDS) + " " + next.getLeader().getId());
            say("take part", next.getParticipants().stream().map(Participant::getId).collect(Collectors.toList()));
            // One by the latch, one by the end of its session.
            if (n == 1) clients.get(n).close(); else next.close();
        }
        for (CuratorFramework client : clients) client.close();
        eventually("nobody is left", () -> zk.getChildren().forPath("/latch").isEmpty());
    }

    static void selectors(CuratorFramework zk) throws Exception {
        List<Integer> led = Collections.synchronizedList(new ArrayList<>());
        AtomicInteger leaders = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();
        sideBySide(3, (client, n) -> {
            CountDownLatch done = new CountDownLatch(2);
            LeaderSelector selector = new LeaderSelector(client, "/selector", new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework own) {
                    most.accumulateAndGet(leaders.incrementAndGet(), Math::max);
                    pause(20);
                    leaders.decrementAndGet();
                    led.add(n);
                    done.countDown();
                }
            });
            selector.autoRequeue();
            selector.start();
            if (!done.await(PATIENCE, TimeUnit.SECONDS)) throw new IllegalStateException("no turn");
            selector.close();
        });
        say("at once", most);
        say("each led twice", List.of(0, 1, 2).stream().allMatch(n -> Collections.frequency(led, n) >= 2));
    }

    static void mutexes(CuratorFramework zk) throws Exception {
        zk.create().forPath("/mutex", bytes(""));
        zk.create().forPath("/mutex/count", bytes("0"));
        sideBySide(4, (client, n) -> {
            InterProcessMutex mutex = new InterProcessMutex(client, "/mutex/lock");
            for (int i = 0; i < 5; i++) increment(client, mutex, "/mutex/count");
        });
        zk.sync().forPath("/mutex");
        say("counted under a lock", text(zk.getData().forPath("/mutex/count")));
        try (CuratorFramework other = client()) {
            InterProcessMutex held = new InterProcessMutex(zk, "/mutex/lock");
            InterProcessMutex waits = new InterProcessMutex(other, "/mutex/lock");
            held.acquire();
            held.acquire();
            say("participants", held.getParticipantNodes().size());
            say("taken by another", waits.acquire(300, TimeUnit.MILLISECONDS));
            held.release();
            say("still taken", waits.acquire(300, TimeUnit.MILLISECONDS));
            held.release();
            say("free", waits.acquire(PATIENCE, TimeUnit.SECONDS));
            waits.release();
            held.makeRevocable(lock -> THREADS.submit(() -> null));
            InterProcessMultiLock several = new InterProcessMultiLock(other, List.of("/mutex/a", "/mutex/b"));
            say("several", several.acquire(PATIENCE, TimeUnit.SECONDS));
            say("one of them", new InterProcessMutex(zk, "/mutex/b").acquire(300, TimeUnit.MILLISECONDS));
            several.release();
            InterProcessSemaphoreMutex plain = new InterProcessSemaphoreMutex(zk, "/mutex/plain");
            say("not reentrant", plain.acquire(PATIENCE, TimeUnit.SECONDS) + " " + plain.acquire(300, TimeUnit.MILLISECONDS));
            plain.release();
            // The session of a holder ends, and the next one has the lock.
            InterProcessMutex first = new InterProcessMutex(other, "/mutex/lock");
            first.acquire();
            Future<Boolean> next = THREADS.submit(() -> new InterProcessMutex(zk, "/mutex/lock").acquire(PATIENCE, TimeUnit.SECONDS));
            eventually("it waits", () -> zk.getChildren().forPath("/mutex/lock").size() == 2);
            say("waits", next.isDone());
            other.close();
            say("after the end of the holder", next.get());
        }
    }

    /** Not atomic, but for the lock. */
    static void increment(CuratorFramework client, InterProcessMutex mutex, String path) throws Exception {
        if (!mutex.acquire(PATIENCE, TimeUnit.SECONDS)) throw new IllegalStateException("no lock");
        try {
            int count = Integer.parseInt(text(client.getData().forPath(path)));
            client.setData().forPath(path, bytes(String.valueOf(count + 1)));
        } finally {
            mutex.release();
        }
    }

    static void readersAndWriters(CuratorFramework zk) throws Exception {
        CyclicBarrier together = new CyclicBarrier(3);
        AtomicInteger reading = new AtomicInteger();
        sideBySide(3, (client, n) -> {
            InterProcessReadWriteLock lock = new InterProcessReadWriteLock(client, "/readers");
            if (!lock.readLock().acquire(PATIENCE, TimeUnit.SECONDS)) throw new IllegalStateException("no lock");
            together.await(PATIENCE, TimeUnit.SECONDS);
            reading.incrementAndGet();
            if (n == 0 && lock.writeLock().acquire(300, TimeUnit.MILLISECONDS)) throw new IllegalStateException("two locks");
            together.await(PATIENCE, TimeUnit.SECONDS);
            lock.readLock().release();
        });
        say("readers at once", reading);
        InterProcessReadWriteLock lock = new InterProcessReadWriteLock(zk, "/readers");
        say("a writer", lock.writeLock().acquire(PATIENCE, TimeUnit.SECONDS));
        say("that reads", lock.readLock().acquire(PATIENCE, TimeUnit.SECONDS));
        try (CuratorFramework other = client()) {
            InterProcessReadWriteLock others = new InterProcessReadWriteLock(other, "/readers");
            say("others read", others.readLock().acquire(300, TimeUnit.MILLISECONDS));
            lock.writeLock().release();
            say("others read then", others.readLock().acquire(PATIENCE, TimeUnit.SECONDS));
            others.readLock().release();
        }
        lock.readLock().release();
    }

    static void semaphores(CuratorFramework zk) throws Exception {
        AtomicInteger holders = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();
        sideBySide(4, (client, n) -> {
            InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(client, "/semaphore", 2);
            for (int i = 0; i < 3; i++) {
                Lease lease = semaphore.acquire(PATIENCE, TimeUnit.SECONDS);
                most.accumulateAndGet(holders.incrementAndGet(), Math::max);
                pause(20);
                holders.decrementAndGet();
                semaphore.returnLease(lease);
            }
        });
        say("more than two at once", most.get() > 2);
        try (SharedCount leases = new SharedCount(zk, "/leases", 1)) {
            leases.start();
            InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(zk, "/counted", leases);
            Lease one = semaphore.acquire(PATIENCE, TimeUnit.SECONDS);
            say("a second lease", semaphore.acquire(300, TimeUnit.MILLISECONDS) != null);
            leases.setCount(2);
            Lease two = semaphore.acquire(PATIENCE, TimeUnit.SECONDS);
            say("after the count has grown", two != null);
            semaphore.returnAll(Arrays.asList(one, two));
        }
    }

    static void barriers(CuratorFramework zk) throws Exception {
        DistributedBarrier barrier = new DistributedBarrier(zk, "/barrier");
        barrier.setBarrier();
        say("through a barrier", barrier.waitOnBarrier(300, TimeUnit.MILLISECONDS));
        Future<Boolean> waits = THREADS.submit(() -> barrier.waitOnBarrier(PATIENCE, TimeUnit.SECONDS));
        try (CuratorFramework other = client()) {
            new DistributedBarrier(other, "/barrier").removeBarrier();
        }
        say("after it is removed", waits.get());
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger early = new AtomicInteger();
        sideBySide(3, (client, n) -> {
            DistributedDoubleBarrier both = new DistributedDoubleBarrier(client, "/double", 3);
            pause(50 * n);
            inside.incrementAndGet();
            if (!both.enter(PATIENCE, TimeUnit.SECONDS) || inside.get() != 3) early.incrementAndGet();
            if (!both.leave(PATIENCE, TimeUnit.SECONDS)) early.incrementAndGet();
        });
        say("too early through a double barrier", early);
    }

    static final QueueSerializer<String> STRINGS = new QueueSerializer<>() {
        @Override
        public byte[] serialize(String item) {
            return bytes(item);
        }

        @Override
        public String deserialize(byte[] data) {
            return text(data);
        }
    };

    static QueueConsumer<String> into(Collection<String> items) {
        return new QueueConsumer<>() {
            @Override
            public void consumeMessage(String item) {
                items.add(item);
            }

            @Override
            public void stateChanged(CuratorFramework client, ConnectionState state) {}
        };
    }

    static void queues(CuratorFramework zk) throws Exception {
        SimpleDistributedQueue simple = new SimpleDistributedQueue(zk, "/simple");
        for (String item : List.of("a", "b", "c")) simple.offer(bytes(item));
        say("simple", text(simple.peek()) + text(simple.take()) + text(simple.poll()) + text(simple.poll(PATIENCE, TimeUnit.SECONDS)) + text(simple.poll()));
        List<String> items = Collections.synchronizedList(new ArrayList<>());
        try (DistributedQueue<String> queue = QueueBuilder.builder(zk, into(items), STRINGS, "/queue").lockPath("/queue-locks").buildQueue()) {
            queue.start();
            for (int n = 0; n < 10; n++) queue.put("q" + n);
            eventually("all items come", () -> items.size() == 10);
        }
        say("queue", items);
        try (DistributedPriorityQueue<String> fill = QueueBuilder.builder(zk, null, STRINGS, "/priorities").buildPriorityQueue(0)) {
            fill.start();
            fill.put("low", 9);
            fill.put("high", 1);
            fill.put("middle", 5);
            say("flushed", fill.flushPuts(PATIENCE, TimeUnit.SECONDS));
        }
        zk.sync().forPath("/priorities");
        say("by priority", children(zk, "/priorities").stream().map(name -> name.replaceAll("^queue-", "")).collect(Collectors.toList()));
        List<String> late = Collections.synchronizedList(new ArrayList<>());
        try (DistributedDelayQueue<String> queue = QueueBuilder.builder(zk, into(late), STRINGS, "/delayed").buildDelayQueue()) {
            queue.start();
            queue.put("second", System.currentTimeMillis() + 800);
            queue.put("first", System.currentTimeMillis() + 300);
            eventually("both come", () -> late.size() == 2);
        }
        say("delayed", late);
    }

    static void counters(CuratorFramework zk) throws Exception {
        try (CuratorFramework other = client(); SharedCount here = new SharedCount(zk, "/shared", 7); SharedCount there = new SharedCount(other, "/shared", 0)) {
            here.start();
            there.start();
            say("seeds", here.getCount() + " " + there.getCount());
            here.setCount(8);
            eventually("the other sees it", () -> there.getCount() == 8);
            say("with the version that is seen", there.trySetCount(there.getVersionedValue(), 9));
            eventually("it comes back", () -> here.getCount() == 9);
            var old = here.getVersionedValue();
            there.setCount(10);
            say("with an old version", here.trySetCount(old, 11) + " " + there.getCount());
        }
        try (SharedValue value = new SharedValue(zk, "/value", bytes("seed"))) {
            value.start();
            value.setValue(bytes("set"));
            say("value", text(value.getValue()) + " " + value.getVersionedValue().getVersion());
        }
        sideBySide(4, (client, n) -> {
            PromotedToLock lock = PromotedToLock.builder().lockPath("/atomic-lock").retryPolicy(new RetryNTimes(100, 20)).build();
            DistributedAtomicLong counter = new DistributedAtomicLong(client, "/atomic", new RetryNTimes(10, 5), lock);
            for (int i = 0; i < 10; i++) if (!counter.increment().succeeded()) throw new IllegalStateException("not counted");
        });
        DistributedAtomicLong counter = new DistributedAtomicLong(zk, "/atomic", new RetryNTimes(100, 5));
        zk.sync().forPath("/atomic");
        say("counted", counter.get().postValue());
        say("changed", counter.compareAndSet(40L, 41L).succeeded() + " " + counter.compareAndSet(40L, 42L).succeeded() + " " + counter.get().postValue());
        DistributedAtomicInteger small = new DistributedAtomicInteger(zk, "/small", new RetryNTimes(10, 5));
        say("small", small.initialize(3) + " " + small.add(4).postValue() + " " + small.subtract(10).postValue());
    }

    static void nodes(CuratorFramework zk) throws Exception {
        zk.create().forPath("/n");
        try (CuratorFramework own = client(); PersistentNode node = new PersistentNode(own, CreateMode.EPHEMERAL, false, "/n/p", bytes("1"))) {
            node.start();
            say("made", node.waitForInitialCreate(PATIENCE, TimeUnit.SECONDS));
            zk.sync().forPath("/n");
            say("it", text(zk.getData().forPath("/n/p")) + " " + show(zk.checkExists().forPath("/n/p")));
            zk.delete().forPath("/n/p");
            eventually("it is made again", () -> zk.checkExists().forPath("/n/p") != null);
            node.setData(bytes("2"));
            eventually("it has the new value", () -> text(zk.getData().forPath("/n/p")).equals("2"));
            node.close();
            eventually("it is gone", () -> zk.checkExists().forPath("/n/p") == null);
        }
        say("left", children(zk, "/n"));
        List<GroupMember> members = new ArrayList<>();
        List<CuratorFramework> clients = new ArrayList<>();
        for (int n = 0; n < 3; n++) {
            clients.add(client());
            members.add(new GroupMember(clients.get(n), "/group", "m" + n, bytes("d" + n)));
            members.get(n).start();
        }
        for (GroupMember member : members) eventually("all know all", () -> member.getCurrentMembers().size() == 3);
        TreeMap<String, String> known = new TreeMap<>();
        members.get(0).getCurrentMembers().forEach((id, data) -> known.put(id, text(data)));
        say("members", known);
        members.get(1).close();
        eventually("one is gone", () -> members.get(2).getCurrentMembers().size() == 2);
        say("members now", new TreeSet<>(members.get(2).getCurrentMembers().keySet()));
        members.get(0).close();
        members.get(2).close();
        for (CuratorFramework client : clients) client.close();
    }

    /** Events, and a way to wait for one more of them. */
    static class Events {
        private final List<String> seen = Collections.synchronizedList(new ArrayList<>());

        void add(Object kind, ChildData data) {
            seen.add(kind + (data == null ? "" : " " + data.getPath() + " " + text(data.getData())));
        }

        void next(String what, int count) throws Exception {
            eventually(what + " has " + count + " events: " + seen, () -> seen.size() >= count);
        }
    }

    static void caches(CuratorFramework zk) throws Exception {
        zk.create().forPath("/cache", bytes("0"));
        zk.create().forPath("/cache/a", bytes("1"));
        zk.create().forPath("/cache/a/deep", bytes("2"));
        Events node = new Events(), path = new Events(), tree = new Events(), cache = new Events();
        // A ZooKeeper before 3.9 has one kind of watch for a path and a client, so the cache with persistent ones has its own.
        try (CuratorFramework own = client();
            CuratorFramework persistent = client();
            NodeCache nodes = new NodeCache(own, "/cache/a");
            PathChildrenCache paths = new PathChildrenCache(own, "/cache", true);
            TreeCache trees = TreeCache.newBuilder(own, "/cache").build();
            CuratorCache caches = CuratorCache.build(persistent, "/cache")) {
            own.sync().forPath("/cache");
            persistent.sync().forPath("/cache");
            nodes.getListenable().addListener(() -> node.add("changed", nodes.getCurrentData()));
            nodes.start(true);
            paths.getListenable().addListener((c, e) -> path.add(e.getType(), e.getData()));
            paths.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
            trees.getListenable().addListener((c, e) -> tree.add(e.getType(), e.getData()));
            trees.start();
            tree.next("the tree", 4);
            caches.listenable().addListener((kind, before, after) -> cache.add(kind, after == null ? before : after));
            caches.start();
            cache.next("the cache", 3);
            zk.setData().forPath("/cache/a", bytes("3"));
            node.next("the node", 1);
            path.next("the path", 1);
            tree.next("the tree", 5);
            cache.next("the cache", 4);
            zk.create().forPath("/cache/b", bytes("4"));
            path.next("the path", 2);
            tree.next("the tree", 6);
            cache.next("the cache", 5);
            zk.setData().forPath("/cache/a/deep", bytes("5"));
            tree.next("the tree", 7);
            cache.next("the cache", 6);
            zk.delete().forPath("/cache/a/deep");
            tree.next("the tree", 8);
            cache.next("the cache", 7);
            zk.delete().forPath("/cache/a");
            node.next("the node", 2);
            path.next("the path", 3);
            tree.next("the tree", 9);
            cache.next("the cache", 8);
            say("current children", paths.getCurrentData().stream().map(d -> d.getPath() + " " + text(d.getData())).collect(Collectors.toList()));
            say("current tree", trees.getCurrentChildren("/cache").keySet());
            say("current cache", caches.stream().map(d -> d.getPath() + " " + text(d.getData())).sorted().collect(Collectors.toList()));
        }
        for (Events events : List.of(node, path, tree, cache)) {
            // What is there at the start comes in no fixed order.
            int start = events == tree ? 4 : events == cache ? 3 : 0;
            say("at the start", new TreeSet<>(events.seen.subList(0, start)));
            say("then", events.seen.subList(start, events.seen.size()));
        }
    }

    static void watchers(CuratorFramework zk) throws Exception {
        zk.create().forPath("/w", bytes(""));
        List<String> once = Collections.synchronizedList(new ArrayList<>());
        List<String> always = Collections.synchronizedList(new ArrayList<>());
        List<String> below = Collections.synchronizedList(new ArrayList<>());
        try (CuratorFramework own = client(); PersistentWatcher watcher = new PersistentWatcher(own, "/w", false)) {
            own.sync().forPath("/w");
            own.getData().usingWatcher((org.apache.zookeeper.Watcher) e -> once.add(e.getType() + " " + e.getPath())).forPath("/w");
            // As above.
            try (CuratorFramework second = client(); CuratorFramework third = client(); PersistentWatcher plain = new PersistentWatcher(second, "/w", false)) {
                plain.getListenable().addListener(e -> always.add(e.getType() + " " + e.getPath()));
                plain.start();
                org.apache.zookeeper.Watcher recursive = e -> below.add(e.getType() + " " + e.getPath());
                third.watchers().add().withMode(AddWatchMode.PERSISTENT_RECURSIVE).usingWatcher(recursive).forPath("/w");
                pause(300);
                zk.setData().forPath("/w", bytes("1"));
                zk.create().forPath("/w/a", bytes(""));
                zk.setData().forPath("/w/a", bytes("1"));
                zk.delete().forPath("/w/a");
                zk.setData().forPath("/w", bytes("2"));
                eventually("the last one comes", () -> below.size() == 5 && always.size() == 4);
                third.watchers().remove(recursive).forPath("/w");
                say("a watcher that is not there", fails(() -> third.watchers().remove(recursive).forPath("/w")));
                zk.setData().forPath("/w", bytes("3"));
                eventually("the plain one goes on", () -> always.size() == 5);
            }
        }
        say("once", once);
        say("always", always);
        say("below", below.stream().filter(e -> !e.contains("Removed")).collect(Collectors.toList()));
    }

    static void lost(CuratorFramework zk) throws Exception {
        zk.create().forPath("/lost");
        try (CuratorFramework own = client(); PersistentNode node = new PersistentNode(own, CreateMode.EPHEMERAL, false, "/lost/p", bytes("1"))) {
            List<String> states = Collections.synchronizedList(new ArrayList<>());
            own.getConnectionStateListenable().addListener((c, state) -> states.add(state.name()));
            node.start();
            say("made", node.waitForInitialCreate(PATIENCE, TimeUnit.SECONDS));
            own.create().withMode(CreateMode.EPHEMERAL).forPath("/lost/e");
            ZooKeeper before = own.getZookeeperClient().getZooKeeper();
            long session = before.getSessionId();
            boolean taken = false;
            // Again, if its own client takes it back before it is closed.
            while (!states.contains("LOST")) {
                CountDownLatch answered = new CountDownLatch(1);
                ZooKeeper thief = new ZooKeeper(hosts, 20_000, e -> answered.countDown(), session, before.getSessionPasswd());
                taken |= answered.await(PATIENCE, TimeUnit.SECONDS) && thief.getSessionId() == session;
                thief.close();
                for (int waits = 0; waits < 50 && !states.contains("LOST"); waits++) pause(20);
            }
            say("taken up", taken);
            eventually("it is connected again", () -> states.contains("RECONNECTED"));
            say("another session", own.getZookeeperClient().getZooKeeper().getSessionId() != session);
            eventually("the ephemeral is gone", () -> zk.checkExists().forPath("/lost/e") == null);
            eventually("the persistent node comes again", () -> {
                Stat stat = zk.checkExists().forPath("/lost/p");
                return stat != null && stat.getEphemeralOwner() != session;
            });
        }
        say("left", children(zk, "/lost"));
    }

    static void failover(CuratorFramework zk) throws Exception {
        zk.create().forPath("/f", bytes(""));
        zk.create().forPath("/f/count", bytes("0"));
        List<CuratorFramework> clients = new ArrayList<>();
        List<LeaderLatch> latches = new ArrayList<>();
        for (int n = 0; n < 3; n++) {
            clients.add(client());
            latches.add(new LeaderLatch(clients.get(n), "/f/latch", "id" + n));
            latches.get(n).start();
        }
        List<Long> sessions = new ArrayList<>();
        for (CuratorFramework client : clients) sessions.add(client.getZookeeperClient().getZooKeeper().getSessionId());
        PersistentNode node = new PersistentNode(clients.get(0), CreateMode.EPHEMERAL, false, "/f/p", bytes("1"));
        node.start();
        node.waitForInitialCreate(PATIENCE, TimeUnit.SECONDS);
        // Its server may be behind that of the other client.
        zk.sync().forPath("/f");
        long owner = zk.checkExists().forPath("/f/p").getEphemeralOwner();
        CuratorCache cache = CuratorCache.build(clients.get(1), "/f/many");
        cache.start();
        TreeCache tree = TreeCache.newBuilder(clients.get(2), "/f/many").build();
        tree.start();
        for (int kill = 0; kill < 2; kill++) {
            int round = kill;
            Future<Void> work = THREADS.submit(() -> {
                sideBySide(3, (client, n) -> {
                    InterProcessMutex mutex = new InterProcessMutex(client, "/f/lock");
                    for (int i = 0; i < 10; i++) {
                        increment(client, mutex, "/f/count");
                        client.create().orSetData().creatingParentsIfNeeded().forPath("/f/many/" + round + n + i, bytes("x"));
                        pause(50);
                    }
                });
                return null;
            });
            pause(300);
            System.out.println("kill leader");
            if (IN.readLine() == null) throw new IllegalStateException("nobody kills");
            work.get(3 * PATIENCE, TimeUnit.SECONDS);
        }
        zk.sync().forPath("/f");
        say("counted", text(zk.getData().forPath("/f/count")));
        say("made", children(zk, "/f/many").size());
        eventually("the cache has all", () -> cache.size() == 61);
        eventually("the tree has all", () -> tree.getCurrentChildren("/f/many") != null && tree.getCurrentChildren("/f/many").size() == 60);
        eventually("one leads", () -> latches.stream().filter(LeaderLatch::hasLeadership).count() == 1);
        LeaderLatch leads = latches.stream().filter(LeaderLatch::hasLeadership).findFirst().get();
        say("the one that all name", latches.stream().allMatch(latch -> fails(() -> {
            if (!latch.getLeader().getId().equals(leads.getId())) throw new IllegalStateException();
        }).equals("nothing")));
        eventually("all take part again", () -> leads.getParticipants().size() == 3);
        List<Long> now = new ArrayList<>();
        for (CuratorFramework client : clients) now.add(client.getZookeeperClient().getZooKeeper().getSessionId());
        say("the same sessions", now.equals(sessions));
        say("the same ephemeral", zk.checkExists().forPath("/f/p").getEphemeralOwner() == owner);
        cache.close();
        tree.close();
        node.close();
        for (LeaderLatch latch : latches) latch.close();
        for (CuratorFramework client : clients) client.close();
    }
}
