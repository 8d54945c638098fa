import java.io.IOException;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.iceberg.DataFile;
import org.apache.iceberg.DeleteFile;
import org.apache.iceberg.FileFormat;
import org.apache.iceberg.PartitionKey;
import org.apache.iceberg.PartitionSpec;
import org.apache.iceberg.Schema;
import org.apache.iceberg.Table;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.data.GenericAppenderFactory;
import org.apache.iceberg.data.GenericRecord;
import org.apache.iceberg.data.Record;
import org.apache.iceberg.deletes.EqualityDeleteWriter;
import org.apache.iceberg.deletes.PositionDelete;
import org.apache.iceberg.deletes.PositionDeleteWriter;
import org.apache.iceberg.expressions.Literal;
import org.apache.iceberg.io.DataWriter;
import org.apache.iceberg.io.OutputFileFactory;
import org.apache.iceberg.rest.RESTCatalog;
import org.apache.iceberg.types.Types;

/**
 * Makes tables of the same content in Avro, ORC and Parquet, in the namespace `cleaned`, called as their format: `all_` of
 * every type, `deletes_` with both kinds of deletes, `evolved_` with columns that came and went.
 */
public final class Formats {
  private static final int ROWS = 3000;

  private Formats() {}

  public static void main(String[] arguments) throws IOException {
    RESTCatalog catalog = Client.open(Map.of());
    for (FileFormat format : List.of(FileFormat.AVRO, FileFormat.ORC, FileFormat.PARQUET)) {
      String name = format.name().toLowerCase(java.util.Locale.ROOT);
      everyType(catalog, name, format);
      deletes(catalog, name, format);
      evolved(catalog, name, format);
    }
  }

  private static void everyType(RESTCatalog catalog, String name, FileFormat format)
      throws IOException {
    Types.StructType point =
        Types.StructType.of(
            Types.NestedField.optional(30, "x", Types.IntegerType.get()),
            Types.NestedField.optional(
                31, "tags", Types.ListType.ofOptional(32, Types.StringType.get())));
    Schema schema =
        new Schema(
            Types.NestedField.required(1, "id", Types.LongType.get()),
            Types.NestedField.optional(2, "b", Types.BooleanType.get()),
            Types.NestedField.optional(3, "i", Types.IntegerType.get()),
            Types.NestedField.optional(4, "f", Types.FloatType.get()),
            Types.NestedField.optional(5, "d", Types.DoubleType.get()),
            Types.NestedField.optional(6, "small", Types.DecimalType.of(9, 2)),
            Types.NestedField.optional(7, "large", Types.DecimalType.of(38, 10)),
            Types.NestedField.optional(8, "day", Types.DateType.get()),
            Types.NestedField.optional(9, "clock", Types.TimeType.get()),
            Types.NestedField.optional(10, "at", Types.TimestampType.withoutZone()),
            Types.NestedField.optional(11, "instant", Types.TimestampType.withZone()),
            Types.NestedField.optional(12, "s", Types.StringType.get()),
            Types.NestedField.optional(13, "u", Types.UUIDType.get()),
            Types.NestedField.optional(14, "four", Types.FixedType.ofLength(4)),
            Types.NestedField.optional(15, "raw", Types.BinaryType.get()),
            Types.NestedField.optional(16, "point", point),
            Types.NestedField.optional(17, "points", Types.ListType.ofOptional(18, inner(40))),
            Types.NestedField.optional(
                19,
                "by_name",
                Types.MapType.ofOptional(20, 21, Types.StringType.get(), Types.LongType.get())),
            // Avro writes a type that it has named before by its name.
            Types.NestedField.optional(25, "small_too", Types.DecimalType.of(9, 2)),
            Types.NestedField.optional(26, "u_too", Types.UUIDType.get()),
            Types.NestedField.optional(
                22, "by_number", Types.MapType.ofOptional(23, 24, Types.IntegerType.get(), inner(50))));
    Table table = made(catalog, "all_" + name, schema, PartitionSpec.unpartitioned(), "2");
    List<Record> rows = new ArrayList<>();
    for (int row = 0; row < ROWS; row++) {
      rows.add(row(table.schema(), row));
    }
    table.newAppend().appendFile(data(table, format, rows, null)).commit();
  }

  private static Types.StructType inner(int first) {
    return Types.StructType.of(
        Types.NestedField.optional(first, "x", Types.IntegerType.get()),
        Types.NestedField.optional(first + 1, "y", Types.StringType.get()));
  }

  private static Record row(Schema schema, int row) {
    GenericRecord record = GenericRecord.create(schema);
    record.setField("id", (long) row);
    if (row % 7 == 3) {
      return record;
    }
    boolean even = row % 2 == 0;
    record.setField("b", even);
    record.setField("i", row * 1_000_003);
    record.setField("f", row % 11 == 0 ? Float.NaN : row / 8f);
    record.setField("d", row % 13 == 0 ? Double.NEGATIVE_INFINITY : -row / 3d);
    record.setField("small", BigDecimal.valueOf(row * 37L - 50_000, 2));
    record.setField("large", new BigDecimal("1234567890123456789012345678.0123456789").subtract(BigDecimal.valueOf(row)));
    record.setField("day", LocalDate.ofEpochDay(row * 17L - 20_000));
    record.setField("clock", LocalTime.ofNanoOfDay(row * 1_000_037_000L % 86_400_000_000_000L));
    LocalDateTime at = LocalDateTime.ofEpochSecond(row * 977_777L - 1_500_000_000L, row * 1000, ZoneOffset.UTC);
    record.setField("at", at);
    record.setField("instant", OffsetDateTime.of(at.plusHours(1), ZoneOffset.UTC));
    record.setField("s", row % 5 == 0 ? "" : "text " + row + " ☃");
    record.setField("u", new UUID(row * 0x9E3779B97F4A7C15L, ~row));
    record.setField("small_too", BigDecimal.valueOf(row, 2));
    record.setField("u_too", new UUID(row, row));
    record.setField("four", new byte[] {(byte) row, 0, -1, (byte) (row >> 8)});
    record.setField("raw", ByteBuffer.wrap(("raw" + row).getBytes(java.nio.charset.StandardCharsets.UTF_8)));
    Types.StructType point = schema.findType("point").asStructType();
    record.setField(
        "point",
        row % 3 == 0 ? null : record(point, "x", even ? row : null, "tags", even ? List.of("p", "q" + row) : List.of()));
    Types.StructType one = schema.findType("points").asListType().elementType().asStructType();
    List<Record> points = new ArrayList<>();
    for (int place = 0; place < row % 4; place++) {
      points.add(place == 2 ? null : record(one, "x", place, "y", even ? null : "y" + place));
    }
    record.setField("points", points);
    Map<String, Long> byName = new LinkedHashMap<>();
    Map<Integer, Record> byNumber = new LinkedHashMap<>();
    Types.StructType value = schema.findType("by_number").asMapType().valueType().asStructType();
    for (int place = 0; place < row % 3; place++) {
      byName.put("k" + place, place == 1 ? null : (long) row);
      byNumber.put(place - 1, place == 1 ? null : record(value, "x", row, "y", "v"));
    }
    record.setField("by_name", byName);
    record.setField("by_number", row % 10 == 1 ? null : byNumber);
    return record;
  }

  private static Record record(Types.StructType of, Object... pairs) {
    GenericRecord record = GenericRecord.create(of);
    for (int place = 0; place < pairs.length; place += 2) {
      record.setField((String) pairs[place], pairs[place + 1]);
    }
    return record;
  }

  /** Two partitions; of each some rows are deleted by position, and rows of both by value. */
  private static void deletes(RESTCatalog catalog, String name, FileFormat format)
      throws IOException {
    Schema schema =
        new Schema(
            Types.NestedField.required(1, "id", Types.LongType.get()),
            Types.NestedField.optional(2, "kind", Types.StringType.get()),
            Types.NestedField.optional(3, "v", Types.IntegerType.get()));
    PartitionSpec spec = PartitionSpec.builderFor(schema).identity("kind").build();
    Table table = made(catalog, "deletes_" + name, schema, spec, "2");
    Schema key = table.schema().select("v");
    for (String kind : List.of("a", "b")) {
      List<Record> rows = new ArrayList<>();
      for (int row = 0; row < ROWS; row++) {
        rows.add(record(table.schema().asStruct(), "id", (long) row, "kind", kind, "v", row % 100 == 99 ? null : row % 100));
      }
      PartitionKey partition = new PartitionKey(table.spec(), table.schema());
      partition.partition(rows.get(0));
      DataFile file = data(table, format, rows, partition);
      table.newAppend().appendFile(file).commit();
      int[] ids = {key.findField("v").fieldId()};
      GenericAppenderFactory factory = new GenericAppenderFactory(table.schema(), table.spec(), ids, key, null);
      OutputFileFactory files = OutputFileFactory.builderFor(table, 1, 1).format(format).build();
      PositionDeleteWriter<Record> positions = factory.newPosDeleteWriter(files.newOutputFile(partition), format, partition);
      EqualityDeleteWriter<Record> values = factory.newEqDeleteWriter(files.newOutputFile(partition), format, partition);
      for (long row = 0; row < ROWS; row += kind.equals("a") ? 10 : 1000) {
        positions.write(PositionDelete.<Record>create().set(file.location(), row, null));
      }
      for (Integer gone : kind.equals("a") ? new Integer[] {5, null} : new Integer[] {7}) {
        values.write(record(key.asStruct(), "v", gone));
      }
      positions.close();
      values.close();
      DeleteFile byPosition = positions.toDeleteFile();
      DeleteFile byValue = values.toDeleteFile();
      table.newRowDelta().addDeletes(byPosition).addDeletes(byValue).commit();
    }
  }

  /** A column renamed, one widened, one dropped, one added with a default, between files. */
  private static void evolved(RESTCatalog catalog, String name, FileFormat format)
      throws IOException {
    Schema schema =
        new Schema(
            Types.NestedField.required(1, "id", Types.LongType.get()),
            Types.NestedField.optional(2, "old", Types.StringType.get()),
            Types.NestedField.optional(3, "n", Types.IntegerType.get()),
            Types.NestedField.optional(4, "gone", Types.DoubleType.get()));
    Table table = made(catalog, "evolved_" + name, schema, PartitionSpec.unpartitioned(), "3");
    Record first = record(table.schema().asStruct(), "id", 1L, "old", "one", "n", 1, "gone", 0.5);
    table.newAppend().appendFile(data(table, format, List.of(first), null)).commit();
    table
        .updateSchema()
        .renameColumn("old", "name")
        .updateColumn("n", Types.LongType.get())
        .deleteColumn("gone")
        .commit();
    table
        .updateSchema()
        .addColumn("old", Types.StringType.get(), "came later", Literal.of("default"))
        .commit();
    Record second = record(table.schema().asStruct(), "id", 2L, "name", "two", "n", 1L << 40, "old", "own");
    table.newAppend().appendFile(data(table, format, List.of(second), null)).commit();
  }

  private static Table made(
      RESTCatalog catalog, String name, Schema schema, PartitionSpec spec, String version) {
    TableIdentifier table = TableIdentifier.of("cleaned", name);
    return catalog.createTable(table, schema, spec, Map.of("format-version", version));
  }

  private static DataFile data(
      Table table, FileFormat format, List<Record> rows, PartitionKey partition)
      throws IOException {
    GenericAppenderFactory factory = new GenericAppenderFactory(table.schema(), table.spec());
    OutputFileFactory files = OutputFileFactory.builderFor(table, 0, 0).format(format).build();
    DataWriter<Record> writer =
        factory.newDataWriter(
            partition == null ? files.newOutputFile() : files.newOutputFile(partition), format, partition);
    try (writer) {
      writer.write(rows);
    }
    return writer.toDataFile();
  }
}
