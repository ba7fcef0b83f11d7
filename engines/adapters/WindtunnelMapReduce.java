import java.io.*;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.io.*;
import org.apache.hadoop.mapreduce.*;
import org.apache.hadoop.mapreduce.lib.output.FileOutputFormat;

/**
 * Hadoop MapReduce jobs whose map and reduce functions run in Python processes behind pipes. A record is (partition, block of rows as
 * Arrow bytes): Hadoop splits, runs, partitions, sorts, spills, shuffles, merges and commits; it does not look into blocks.
 *
 * Arguments: scratch folder, slots, megabytes of the sort buffer, command of a Python worker. It says "ready"; each line of standard
 * input is a job (file of its tasks, output folder, number of reducers, reduce task), each further line of standard output tells how
 * one ended. Raw types and no lambdas, so that Janino compiles it.
 */
public class WindtunnelMapReduce {
  static String[] command;
  static LinkedList idle = new LinkedList();
  static ArrayList all = new ArrayList();
  static volatile String failure = "";

  /** A Python process: takes a task and its records, answers with records and how it ended. */
  public static class Worker {
    Process process;
    DataInputStream in;
    DataOutputStream out;

    static Worker take() throws IOException {
      synchronized (idle) {
        if (!idle.isEmpty()) return (Worker) idle.removeFirst();
      }
      Worker worker = new Worker();
      ProcessBuilder builder = new ProcessBuilder(command);
      builder.redirectError(ProcessBuilder.Redirect.INHERIT);
      worker.process = builder.start();
      worker.in = new DataInputStream(new BufferedInputStream(worker.process.getInputStream(), 1 << 16));
      worker.out = new DataOutputStream(new BufferedOutputStream(worker.process.getOutputStream(), 1 << 16));
      synchronized (idle) {
        all.add(worker);
      }
      return worker;
    }

    void task(String json) throws IOException {
      byte[] bytes = json.getBytes(StandardCharsets.UTF_8);
      out.writeInt(bytes.length);
      out.write(bytes);
    }

    void record(BytesWritable value) throws IOException {
      out.writeInt(value.getLength());
      out.write(value.getBytes(), 0, value.getLength());
    }

    void answers(TaskInputOutputContext context) throws IOException, InterruptedException {
      try {
        out.writeInt(-1);
        out.flush();
        for (int partition = in.readInt(); partition != -1; partition = in.readInt()) {
          context.write(new IntWritable(partition), new BytesWritable(bytes()));
        }
        String ending = new String(bytes(), StandardCharsets.UTF_8);
        synchronized (idle) {
          idle.add(this);
        }
        if (ending.length() > 0) {
          failure = ending;
          throw new IOException("the Python worker failed");
        }
      } catch (EOFException gone) {
        failure = "a Python worker ended in the middle of a task";
        throw gone;
      }
    }

    byte[] bytes() throws IOException {
      byte[] found = new byte[in.readInt()];
      in.readFully(found);
      return found;
    }
  }

  /** A map task: what Python must know of it, and the file of blocks that it reads, if any. */
  public static class TaskSplit extends InputSplit implements Writable {
    String json = "";
    String file = "";

    public TaskSplit() {}

    public TaskSplit(String json, String file) {
      this.json = json;
      this.file = file;
    }

    public long getLength() {
      return file.length() == 0 ? 0 : new File(file).length();
    }

    public String[] getLocations() {
      return new String[0];
    }

    public void write(DataOutput out) throws IOException {
      out.writeInt(json.length());
      out.writeChars(json);
      out.writeUTF(file);
    }

    public void readFields(DataInput in) throws IOException {
      StringBuilder text = new StringBuilder();
      for (int left = in.readInt(); left > 0; left--) text.append(in.readChar());
      json = text.toString();
      file = in.readUTF();
    }
  }

  /** A split a line of the tasks' file; its records are the blocks of the split's file. */
  public static class Tasks extends InputFormat {
    public List getSplits(JobContext context) throws IOException {
      ArrayList splits = new ArrayList();
      List lines = Files.readAllLines(Paths.get(context.getConfiguration().get("windtunnel.tasks"), new String[0]));
      for (Iterator i = lines.iterator(); i.hasNext();) {
        String line = (String) i.next();
        int tab = line.indexOf('\t');
        splits.add(new TaskSplit(line.substring(0, tab), line.substring(tab + 1)));
      }
      return splits;
    }

    public RecordReader createRecordReader(InputSplit split, TaskAttemptContext context) {
      return new Blocks();
    }
  }

  /** Blocks of a file: partition, length, bytes. */
  public static class Blocks extends RecordReader {
    DataInputStream in;
    IntWritable key = new IntWritable();
    BytesWritable value;

    public void initialize(InputSplit split, TaskAttemptContext context) throws IOException {
      String file = ((TaskSplit) split).file;
      if (file.length() > 0) in = new DataInputStream(new BufferedInputStream(new FileInputStream(file), 1 << 16));
    }

    public boolean nextKeyValue() throws IOException {
      if (in == null) return false;
      try {
        key.set(in.readInt());
      } catch (EOFException end) {
        return false;
      }
      byte[] bytes = new byte[in.readInt()];
      in.readFully(bytes);
      value = new BytesWritable(bytes);
      return true;
    }

    public Object getCurrentKey() {
      return key;
    }

    public Object getCurrentValue() {
      return value;
    }

    public float getProgress() {
      return 0;
    }

    public void close() throws IOException {
      if (in != null) in.close();
    }
  }

  /** The same file, written; Hadoop's committer moves it into place. */
  public static class BlockFiles extends FileOutputFormat {
    public RecordWriter getRecordWriter(TaskAttemptContext context) throws IOException {
      Path path = getDefaultWorkFile(context, ".blocks");
      BlockWriter writer = new BlockWriter();
      writer.out = new DataOutputStream(new BufferedOutputStream(path.getFileSystem(context.getConfiguration()).create(path), 1 << 16));
      return writer;
    }
  }

  /** See BlockFiles. */
  public static class BlockWriter extends RecordWriter {
    DataOutputStream out;

    public void write(Object key, Object value) throws IOException {
      BytesWritable bytes = (BytesWritable) value;
      out.writeInt(((IntWritable) key).get());
      out.writeInt(bytes.getLength());
      out.write(bytes.getBytes(), 0, bytes.getLength());
    }

    public void close(TaskAttemptContext context) throws IOException {
      out.close();
    }
  }

  /** A map task in Python. */
  public static class PythonMapper extends Mapper {
    public void run(Mapper.Context context) throws IOException, InterruptedException {
      Worker worker = Worker.take();
      worker.task(((TaskSplit) context.getInputSplit()).json);
      while (context.nextKeyValue()) worker.record((BytesWritable) context.getCurrentValue());
      worker.answers(context);
    }
  }

  /** A reduce task in Python, over all blocks of its partition. */
  public static class PythonReducer extends Reducer {
    public void run(Reducer.Context context) throws IOException, InterruptedException {
      Worker worker = Worker.take();
      int partition = context.getTaskAttemptID().getTaskID().getId();
      worker.task(context.getConfiguration().get("windtunnel.reduce").replace("\"PARTITION\"", Integer.toString(partition)));
      while (context.nextKey()) {
        for (Iterator values = context.getValues().iterator(); values.hasNext();) worker.record((BytesWritable) values.next());
      }
      worker.answers(context);
    }
  }

  /** Partition p goes to reducer p. */
  public static class ByNumber extends Partitioner {
    public int getPartition(Object key, Object value, int reducers) {
      return ((IntWritable) key).get() % reducers;
    }
  }

  static String run(String[] fields, String scratch, int slots, int buffer) throws Exception {
    Configuration conf = new Configuration();
    conf.setClassLoader(WindtunnelMapReduce.class.getClassLoader());
    conf.set("mapreduce.framework.name", "local");
    conf.set("fs.defaultFS", "file:///");
    conf.set("hadoop.tmp.dir", scratch);
    conf.set("mapreduce.cluster.local.dir", scratch + "/local");
    conf.set("mapreduce.jobtracker.staging.root.dir", scratch + "/staging");
    conf.setInt("mapreduce.local.map.tasks.maximum", slots);
    conf.setInt("mapreduce.local.reduce.tasks.maximum", slots);
    conf.setInt("mapreduce.task.io.sort.mb", buffer);
    conf.setInt("mapreduce.client.completion.pollinterval", 20);
    conf.setInt("mapreduce.client.progressmonitor.pollinterval", 20);
    conf.set("windtunnel.tasks", fields[0]);
    conf.set("windtunnel.reduce", fields[3]);
    Job job = Job.getInstance(conf, "windtunnel");
    job.setInputFormatClass(Tasks.class);
    job.setMapperClass(PythonMapper.class);
    job.setReducerClass(PythonReducer.class);
    job.setPartitionerClass(ByNumber.class);
    job.setNumReduceTasks(Integer.parseInt(fields[2]));
    job.setMapOutputKeyClass(IntWritable.class);
    job.setMapOutputValueClass(BytesWritable.class);
    job.setOutputKeyClass(IntWritable.class);
    job.setOutputValueClass(BytesWritable.class);
    job.setOutputFormatClass(BlockFiles.class);
    FileOutputFormat.setOutputPath(job, new Path(fields[1]));
    failure = "";
    if (!job.waitForCompletion(false)) {
      String why = failure.length() > 0 ? failure : String.valueOf(job.getStatus().getFailureInfo());
      return "failed\t" + URLEncoder.encode(why, "UTF-8");
    }
    Counters counters = job.getCounters();
    return "ok\t" + counters.findCounter(TaskCounter.SPILLED_RECORDS).getValue()
        + "\t" + counters.findCounter(TaskCounter.REDUCE_SHUFFLE_BYTES).getValue();
  }

  public static void main(String[] arguments) throws Exception {
    Thread.currentThread().setContextClassLoader(WindtunnelMapReduce.class.getClassLoader());
    command = new String[arguments.length - 3];
    System.arraycopy(arguments, 3, command, 0, command.length);
    PrintStream answers = System.out;
    System.setOut(System.err);
    Requests requests = new Requests();
    requests.start();
    answers.println("ready");
    answers.flush();
    while (true) {
      String line = (String) requests.lines.take();
      String answer;
      try {
        answer = run(line.split("\t", -1), arguments[0], Integer.parseInt(arguments[1]), Integer.parseInt(arguments[2]));
      } catch (Throwable error) {
        answer = "failed\t" + URLEncoder.encode(error.toString(), "UTF-8");
      }
      answers.println(answer);
      answers.flush();
    }
  }

  /** Lines of standard input; its end is the front's, and ends the workers and this process in the middle of a job too. */
  static class Requests extends Thread {
    LinkedBlockingQueue lines = new LinkedBlockingQueue();

    public void run() {
      try {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) lines.add(line);
      } catch (IOException gone) {
        failure = gone.toString();
      }
      for (Iterator i = all.iterator(); i.hasNext();) ((Worker) i.next()).process.destroyForcibly();
      Runtime.getRuntime().halt(0);
    }
  }
}
