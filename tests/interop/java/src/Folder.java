import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.FileFormat;
import org.apache.iceberg.Schema;
import org.apache.iceberg.Table;
import org.apache.iceberg.catalog.Namespace;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.data.GenericAppenderFactory;
import org.apache.iceberg.data.GenericRecord;
import org.apache.iceberg.data.IcebergGenerics;
import org.apache.iceberg.data.Record;
import org.apache.iceberg.hadoop.HadoopCatalog;
import org.apache.iceberg.io.CloseableIterable;
import org.apache.iceberg.io.DataWriter;
import org.apache.iceberg.io.OutputFileFactory;
import org.apache.iceberg.types.Types;

/**
 * Java's catalog of the folder at the system property `folder`: one thing done to a table of the columns `id` and `s`.
 *
 * <p>create TABLE VERSION | append TABLE FROM TO | property TABLE KEY VALUE | read TABLE | list NAMESPACE | drop TABLE
 */
public final class Folder {
  private static final Schema SCHEMA =
      new Schema(
          Types.NestedField.optional(1, "id", Types.LongType.get()),
          Types.NestedField.optional(2, "s", Types.StringType.get()));

  private Folder() {}

  public static void main(String[] told) throws IOException {
    HadoopCatalog catalog = new HadoopCatalog(new Configuration(), System.getProperty("folder"));
    if (told[0].equals("list")) {
      System.out.println(catalog.listTables(Namespace.of(told[1].split("\\."))));
      return;
    }
    TableIdentifier name = TableIdentifier.parse(told[1]);
    switch (told[0]) {
      case "create" -> catalog.createTable(
          name, SCHEMA, null, Map.of("format-version", told[2]));
      case "append" -> append(
          catalog.loadTable(name), Long.parseLong(told[2]), Long.parseLong(told[3]));
      case "property" -> catalog.loadTable(name).updateProperties().set(told[2], told[3]).commit();
      case "read" -> System.out.println(ids(catalog.loadTable(name)));
      case "drop" -> System.out.println(catalog.dropTable(name));
      default -> throw new IllegalArgumentException(told[0]);
    }
  }

  private static void append(Table table, long from, long to) throws IOException {
    OutputFileFactory files =
        OutputFileFactory.builderFor(table, 1, from).format(FileFormat.PARQUET).build();
    DataWriter<Record> writer =
        new GenericAppenderFactory(table.schema())
            .newDataWriter(files.newOutputFile(), FileFormat.PARQUET, null);
    for (long id = from; id < to; id++) {
      Record row = GenericRecord.create(table.schema());
      row.setField("id", id);
      row.setField("s", "s" + id);
      writer.write(row);
    }
    writer.close();
    table.newAppend().appendFile(writer.toDataFile()).commit();
  }

  private static List<Long> ids(Table table) throws IOException {
    List<Long> all = new ArrayList<>();
    try (CloseableIterable<Record> rows = IcebergGenerics.read(table).build()) {
      rows.forEach(row -> all.add((Long) row.getField("id")));
    }
    Collections.sort(all);
    return all;
  }
}
