//! Variants of values, and values of variants, also where they lie within each other.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, ListArray, MapArray, StringBuilder,
    StructArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, can_cast_types, cast, cast_with_options, is_null};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use icefield_table::arrow::{is_variant, reshape, uuid, variant_type};
use parquet::variant::{
    GetOptions, Variant, VariantArrayBuilder, VariantBuilder, VariantPath, VariantPathElement,
    cast_to_variant_with_options, variant_get,
};

use super::{at, text};
use crate::{Error, Result};

/// Values of any type as variants.
///
/// # Errors
///
/// A type that variants do not have.
pub fn from_values(array: &ArrayRef) -> Result<ArrayRef> {
    let kind = array.data_type();
    if is_variant(kind) {
        return Ok(Arc::clone(array));
    }
    if has_variants(kind) {
        return from_nested(array);
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let made = cast_to_variant_with_options(&plain(array)?, &strict)?;
    let made: ArrayRef = Arc::new(made.into_inner());
    Ok(reshape(&made, &variant_type())?)
}

/// Values of types that the kernel knows.
fn plain(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Utf8View => cast(array, &DataType::Utf8)?,
        DataType::BinaryView => cast(array, &DataType::Binary)?,
        _ => Arc::clone(array),
    })
}

fn has_variants(kind: &DataType) -> bool {
    match kind {
        kind if is_variant(kind) => true,
        DataType::Struct(fields) => fields.iter().any(|it| has_variants(it.data_type())),
        DataType::List(of) | DataType::Map(of, _) => has_variants(of.data_type()),
        _ => false,
    }
}

/// Structs, lists and maps that variants lie in, which the library takes for structs of bytes.
fn from_nested(array: &ArrayRef) -> Result<ArrayRef> {
    let mut out = VariantArrayBuilder::new(array.len());
    let mut put = |row: usize, fill: &dyn Fn(&mut VariantBuilder) -> Result<()>| {
        if array.is_null(row) {
            out.append_null();
            return Ok(());
        }
        let mut builder = VariantBuilder::new();
        fill(&mut builder)?;
        let (metadata, bytes) = builder.finish();
        out.append_variant(Variant::try_new(&metadata, &bytes)?);
        Ok::<_, Error>(())
    };
    match array.data_type() {
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().map(from_values);
            let columns = columns.collect::<Result<Vec<_>>>()?;
            for row in 0..array.len() {
                put(row, &|builder| {
                    let mut object = builder.new_object();
                    for (field, column) in fields.iter().zip(&columns) {
                        object.insert(field.name(), value(column, row)?);
                    }
                    object.finish();
                    Ok(())
                })?;
            }
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let values = from_values(lists.values())?;
            for (row, ends) in lists.offsets().windows(2).enumerate() {
                put(row, &|builder| {
                    let mut list = builder.new_list();
                    for place in places(ends) {
                        list.append_value(value(&values, place)?);
                    }
                    list.finish();
                    Ok(())
                })?;
            }
        }
        _ => {
            let maps = array.as_map();
            let keys = cast(maps.keys(), &DataType::Utf8)?;
            let keys = keys.as_string::<i32>();
            let values = from_values(maps.values())?;
            for (row, ends) in maps.offsets().windows(2).enumerate() {
                put(row, &|builder| {
                    let mut object = builder.new_object();
                    for place in places(ends) {
                        object.insert(keys.value(place), value(&values, place)?);
                    }
                    object.finish();
                    Ok(())
                })?;
            }
        }
    }
    let made: ArrayRef = Arc::new(out.build().into_inner());
    Ok(reshape(&made, &variant_type())?)
}

/// The variant at a row; the null of JSON where there is none.
fn value(of: &ArrayRef, row: usize) -> Result<Variant<'_, '_>> {
    if of.is_valid(row) { at(of, row) } else { Ok(Variant::Null) }
}

fn places(ends: &[i32]) -> std::ops::Range<usize> {
    let place = |at: usize| ends.get(at).map_or(0, |it| usize::try_from(*it).unwrap_or(0));
    place(0)..place(1)
}

/// What lies at a path in each variant, all of which were checked, as another type. `tries` makes a null of what is none
/// of that type, where it is an error else.
pub(super) fn get(
    array: &ArrayRef,
    path: VariantPath<'_>,
    shown: &str,
    to: &DataType,
    tries: bool,
) -> Result<ArrayRef> {
    let found = variant_get(array, GetOptions::new_with_path(path))?;
    let found = reshape(&found, &variant_type())?;
    match to {
        to if is_variant(to) => Ok(found),
        DataType::Struct(fields) => as_structs(&found, fields, shown, tries),
        DataType::List(element) => as_lists(&found, element, shown, tries),
        DataType::Map(entries, sorted) => as_maps(&found, (entries, *sorted), shown, tries),
        to => as_leaves(&found, to, shown, tries),
    }
}

/// What is none of a type.
fn misfit(value: &Variant<'_, '_>, shown: &str, to: &DataType) -> Error {
    let value = text(value).ok().flatten().unwrap_or_default();
    let value: String = value.chars().take(80).collect();
    let kind = crate::types::from_arrow(&Field::new("", to.clone(), true));
    let kind = kind.map_or_else(|_| to.to_string(), |it| icefield_catalog::spec::type_name(&it));
    Error::invalid(format!("`{value}` at {shown} is no {kind}"))
        .with_hint("try_variant_get makes a null of it, TRY_CAST too".to_owned())
}

/// Which variants are there, and are of a kind; one that is not, nor the null of JSON, is an error unless it is only tried.
fn of_kind(
    array: &ArrayRef,
    is: fn(&Variant<'_, '_>) -> bool,
    shown: &str,
    to: &DataType,
    tries: bool,
) -> Result<Vec<bool>> {
    let rows = (0..array.len()).map(|row| {
        if array.is_null(row) {
            return Ok(false);
        }
        let value = at(array, row)?;
        match is(&value) {
            true => Ok(true),
            false if tries || matches!(value, Variant::Null) => Ok(false),
            false => Err(misfit(&value, shown, to)),
        }
    });
    rows.collect()
}

fn as_structs(array: &ArrayRef, fields: &Fields, shown: &str, tries: bool) -> Result<ArrayRef> {
    let to = DataType::Struct(fields.clone());
    let is_object = |it: &Variant<'_, '_>| matches!(it, Variant::Object(_));
    let rows = of_kind(array, is_object, shown, &to, tries)?;
    let columns = fields.iter().map(|field| {
        let path = VariantPath::new(vec![VariantPathElement::field(field.name().clone())]);
        get(array, path, &format!("{shown}.{}", field.name()), field.data_type(), tries)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(StructArray::try_new_with_length(
        fields.clone(),
        columns,
        Some(NullBuffer::from(rows)),
        array.len(),
    )?))
}

fn as_lists(array: &ArrayRef, element: &FieldRef, shown: &str, tries: bool) -> Result<ArrayRef> {
    let to = DataType::List(Arc::clone(element));
    let rows = of_kind(array, |it| matches!(it, Variant::List(_)), shown, &to, tries)?;
    let (mut all, mut lengths) = (VariantArrayBuilder::new(array.len()), Vec::new());
    for (row, is) in rows.iter().enumerate() {
        let before = lengths.len();
        if *is && let Variant::List(list) = at(array, row)? {
            list.iter().for_each(|it| all.append_variant(it));
            lengths.push(list.len());
        }
        if lengths.len() == before {
            lengths.push(0);
        }
    }
    let all: ArrayRef = Arc::new(all.build().into_inner());
    let all = reshape(&all, &variant_type())?;
    let values = get(&all, VariantPath::new(Vec::new()), shown, element.data_type(), tries)?;
    let (offsets, nulls) = (OffsetBuffer::from_lengths(lengths), NullBuffer::from(rows));
    Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, Some(nulls))?))
}

fn as_maps(
    array: &ArrayRef,
    (entries, sorted): (&FieldRef, bool),
    shown: &str,
    tries: bool,
) -> Result<ArrayRef> {
    let to = DataType::Map(Arc::clone(entries), sorted);
    let DataType::Struct(pair) = entries.data_type() else {
        return Err(Error::invalid("a map's entries are pairs"));
    };
    let [key, value] = pair.as_ref() else {
        return Err(Error::invalid("a map's entries are pairs"));
    };
    let rows = of_kind(array, |it| matches!(it, Variant::Object(_)), shown, &to, tries)?;
    let (mut keys, mut values) = (StringBuilder::new(), VariantArrayBuilder::new(array.len()));
    let mut lengths = vec![0; rows.len()];
    for ((row, is), length) in rows.iter().enumerate().zip(&mut lengths) {
        if *is && let Variant::Object(object) = at(array, row)? {
            for (name, it) in object.iter() {
                keys.append_value(name);
                values.append_variant(it);
            }
            *length = object.len();
        }
    }
    let keys: ArrayRef = Arc::new(keys.finish());
    let keys = icefield_table::arrow::cast(&keys, key.data_type())?;
    let values: ArrayRef = Arc::new(values.build().into_inner());
    let values = reshape(&values, &variant_type())?;
    let values = get(&values, VariantPath::new(Vec::new()), shown, value.data_type(), tries)?;
    let pairs = StructArray::try_new(pair.clone(), vec![keys, values], None)?;
    let (offsets, nulls) = (OffsetBuffer::from_lengths(lengths), NullBuffer::from(rows));
    Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, Some(nulls), sorted)?))
}

/// Variants as values that no others lie in. Text that reads as the type is of it too, as in a cast.
fn as_leaves(array: &ArrayRef, to: &DataType, shown: &str, tries: bool) -> Result<ArrayRef> {
    let typed = match to.is_string() {
        true => new_null_array(to, array.len()),
        false => typed(array, to),
    };
    let mut texts = StringBuilder::new();
    for row in 0..array.len() {
        match array.is_valid(row) && typed.is_null(row) {
            true => texts.append_option(text(&at(array, row)?)?),
            false => texts.append_null(),
        }
    }
    let texts: ArrayRef = Arc::new(texts.finish());
    let read = read(&texts, to)?;
    let fails = |row: &usize| texts.is_valid(*row) && read.is_null(*row) && typed.is_null(*row);
    if !tries && let Some(row) = (0..texts.len()).find(fails) {
        return Err(misfit(&at(array, row)?, shown, to));
    }
    Ok(zip(&is_null(&typed)?, &read, &typed)?)
}

/// Variants that are of a type by themselves; null where they are not.
fn typed(array: &ArrayRef, to: &DataType) -> ArrayRef {
    let options = GetOptions::new()
        .with_as_type(Some(Arc::new(Field::new("value", to.clone(), true))))
        .with_cast_options(CastOptions { safe: true, ..CastOptions::default() });
    match variant_get(array, options) {
        Ok(found) if found.data_type() == to => found,
        _ => new_null_array(to, array.len()),
    }
}

/// Texts as values of a type, null where they are none.
fn read(texts: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if *to == DataType::FixedSizeBinary(16) {
        let mut out = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
        for text in texts.as_string::<i32>() {
            match text.and_then(uuid) {
                Some(bytes) => out.append_value(bytes)?,
                None => out.append_null(),
            }
        }
        return Ok(Arc::new(out.finish()));
    }
    // The letters of a text are no bytes that somebody meant.
    if to.is_binary()
        || matches!(to, DataType::FixedSizeBinary(_))
        || !can_cast_types(texts.data_type(), to)
    {
        return Ok(new_null_array(to, texts.len()));
    }
    Ok(cast_with_options(texts, to, &CastOptions::default())?)
}
