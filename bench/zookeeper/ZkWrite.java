// The load of `quorate bench write` against ZooKeeper, by its own Java client: one session, `in-flight` asynchronous
// setData calls on `znodes` znodes. Prints one JSON line with the same members.
//
//   java -cp /usr/share/java/slf4j-nop.jar:/usr/share/java/zookeeper.jar ZkWrite.java HOST:PORT IN_FLIGHT BYTES SECONDS [ZNODES [WARM_UP_SECONDS]]
import java.util.Arrays;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;

public class ZkWrite {
    public static void main(String[] args) throws Exception {
        int inFlight = Integer.parseInt(args[1]);
        int bytes = Integer.parseInt(args[2]);
        int seconds = Integer.parseInt(args[3]);
        int znodes = args.length > 4 ? Integer.parseInt(args[4]) : 1000;
        // The machine code of client and servers is still being made during the first half minute.
        int warmUp = args.length > 5 ? Integer.parseInt(args[5]) : 30;

        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper zk = new ZooKeeper(args[0], 30000, event -> {
            if (event.getState() == Watcher.Event.KeeperState.SyncConnected) connected.countDown();
        });
        connected.await();
        String root = "/bench-" + System.nanoTime();
        zk.create(root, new byte[0], ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        String[] paths = new String[znodes];
        for (int i = 0; i < znodes; i++) {
            paths[i] = root + "/" + i;
            zk.create(paths[i], new byte[0], ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        }

        byte[] value = new byte[bytes];
        Semaphore window = new Semaphore(inFlight);
        AtomicLong failed = new AtomicLong();
        long[] latencies = new long[4_000_000];
        AtomicLong count = new AtomicLong();
        long warmUntil = System.nanoTime() + warmUp * 1_000_000_000L;
        long end = warmUntil + seconds * 1_000_000_000L;
        long i = 0;
        while (true) {
            window.acquire();
            long start = System.nanoTime();
            if (start >= end) break;
            zk.setData(paths[(int) (i++ % znodes)], value, -1, (rc, path, ctx, stat) -> {
                long now = System.nanoTime();
                if (rc != 0) failed.incrementAndGet();
                else if (now >= warmUntil && now < end) {
                    int slot = (int) count.getAndIncrement();
                    if (slot < latencies.length) latencies[slot] = now - start;
                }
                window.release();
            }, null);
        }
        window.acquire(inFlight - 1);
        int n = (int) Math.min(count.get(), latencies.length);
        Arrays.sort(latencies, 0, n);
        System.out.printf("{\"ops_per_second\":%.0f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"failed\":%d}%n",
            count.get() / (double) seconds, latencies[n / 2] / 1e6, latencies[(int) (n * 0.99)] / 1e6,
            latencies[(int) (n * 0.999)] / 1e6, failed.get());
        zk.close();
        System.exit(0);
    }
}
