//! Tables as files: CSV through the `csv` crate, Parquet through `parquet`.
//!
//! Owns the settings that make a file's bytes a function of its table: no compression, no dictionaries, no name of
//! the library's version.

use std::sync::Arc;

use csv::Writer;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::KernelError;

/// A column of a table; all of a table have one length.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) values: Values,
}

/// What is in it.
pub(super) enum Values {
    Integers(Vec<i64>),
    Numbers(Vec<f64>),
    /// Numbers of which some are missing. In Parquet, NaN.
    Known(Vec<Option<f64>>),
    Texts(Vec<String>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::Integers(values) => values.len(),
            Values::Numbers(values) => values.len(),
            Values::Known(values) => values.len(),
            Values::Texts(values) => values.len(),
        }
    }

    /// A cell; numbers in the shortest form that reads back the same.
    fn cell(&self, row: usize) -> String {
        match self {
            Values::Integers(values) => values[row].to_string(),
            Values::Numbers(values) => values[row].to_string(),
            Values::Known(values) => values[row].map(|value| value.to_string()).unwrap_or_default(),
            Values::Texts(values) => values[row].clone(),
        }
    }
}

/// With a header.
pub(super) fn csv(table: &[Column]) -> Result<Vec<u8>, KernelError> {
    let wrong = |_| KernelError::Output("a CSV");
    let mut writer = Writer::from_writer(Vec::new());
    writer.write_record(table.iter().map(|column| column.name)).map_err(wrong)?;
    for row in 0..table.first().map_or(0, |column| column.values.len()) {
        writer.write_record(table.iter().map(|column| column.values.cell(row))).map_err(wrong)?;
    }
    writer.into_inner().map_err(|_| KernelError::Output("a CSV"))
}

/// One row group.
pub(super) fn parquet(table: &[Column]) -> Result<Vec<u8>, KernelError> {
    written(table).map_err(|_| KernelError::Output("a Parquet file"))
}

fn written(table: &[Column]) -> Result<Vec<u8>, ParquetError> {
    let fields = table.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let schema = Type::group_type_builder("table").with_fields(fields).build()?;
    let properties = WriterProperties::builder()
        .set_created_by("tessera".into())
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for column in table {
        let Some(mut into) = group.next_column()? else { break };
        match &column.values {
            Values::Integers(values) => into.typed::<Int64Type>().write_batch(values, None, None)?,
            Values::Numbers(values) => into.typed::<DoubleType>().write_batch(values, None, None)?,
            Values::Known(values) => {
                let values: Vec<f64> = values.iter().map(|value| value.unwrap_or(f64::NAN)).collect();
                into.typed::<DoubleType>().write_batch(&values, None, None)?
            }
            Values::Texts(values) => {
                let values: Vec<ByteArray> =
                    values.iter().map(|value| ByteArray::from(value.as_str())).collect();
                into.typed::<ByteArrayType>().write_batch(&values, None, None)?
            }
        };
        into.close()?;
    }
    group.close()?;
    writer.into_inner()
}

fn field(column: &Column) -> Result<Arc<Type>, ParquetError> {
    let (physical, logical) = match &column.values {
        Values::Integers(_) => (Physical::INT64, None),
        Values::Numbers(_) | Values::Known(_) => (Physical::DOUBLE, None),
        Values::Texts(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
    };
    Type::primitive_type_builder(column.name, physical)
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(logical)
        .build()
        .map(Arc::new)
}
