//! Expressions that select devices: what they see of a device, and whether they select it.

use crate::cost::estimate::{SizeEstimate, SizeEstimator};
use crate::decls::{Binding, Row};
use crate::env::{Checked, Environment};
use crate::library::semver::Semver;
use crate::program::Program;
use crate::schema::DeclType;
use crate::types::Type;
use crate::value::ops::equal;
use crate::value::{Evaluated, Key, LazyMap, Map, NO_OVERLOAD, Text, Val, failed_with};
use apimachinery::quantity::Quantity;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

/// What an expression may cost, as estimated and as evaluated.
pub const MAX_COST: u64 = 1_000_000;
const MAX_DOMAIN: i64 = 63;
const MAX_ID: i64 = 32;
const MAX_DRIVER: i64 = 63;
const MAX_ATTRIBUTES: i64 = 32;
const MAX_VALUE: i64 = 64;
/// The most values of an attribute.
pub(crate) const MAX_VALUES: usize = 48;

/// What devices have beyond what all expressions know of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Several may use one: `DRAConsumableCapacity`.
    pub consumable_capacity: bool,
    /// Attributes may be lists: `DRAListTypeAttributes`.
    pub list_attributes: bool,
}

/// When an expression was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Now,
    /// When there may have been more features than now.
    Before,
}

/// What an environment has.
#[derive(Clone, Copy, Debug)]
struct Words {
    /// `device.allowMultipleAllocations`.
    multiple: bool,
    /// `includes`.
    includes: bool,
    /// Attributes that may be lists.
    lists: bool,
}

/// A device as expressions see it.
fn device(words: Words) -> Arc<DeclType> {
    let text = |max| DeclType::sized("string", Type::String, 2, max);
    let by_name = |value| {
        let inner = DeclType::map(text(MAX_ID), value, MAX_ATTRIBUTES);
        DeclType::map(text(MAX_DOMAIN), inner, MAX_ATTRIBUTES)
    };
    let quantity = DeclType::simple(Type::object("kubernetes.Quantity"));
    let attribute = match words.lists {
        true => DeclType::sized("dyn", Type::Dyn, 1, MAX_VALUE),
        false => DeclType::sized("any", Type::Any, 1, MAX_VALUE),
    };
    let multiple = ("allowMultipleAllocations", DeclType::sized("bool", Type::Bool, 4, 1));
    DeclType::object(
        "kubernetes.DRADevice",
        [("driver", text(MAX_DRIVER)), ("attributes", by_name(attribute)), ("capacity", by_name(quantity))]
            .into_iter()
            .chain(words.multiple.then_some(multiple)),
    )
}

/// With everything that there may be, for the sizes: they are the same with less.
static DEVICE: LazyLock<Arc<DeclType>> =
    LazyLock::new(|| device(Words { multiple: true, includes: true, lists: false }));

/// `includes`, of lists and of what could be one.
const INCLUDES: &[Row] = &[Row("includes", "dra_includes_dyn_dyn", "dyn.(dyn): bool", includes)];

fn includes<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let [target, wanted] = args else { return Err(NO_OVERLOAD) };
    let Val::List(list) = target else { return Ok(Val::Bool(equal(target, wanted).unwrap_or(false))) };
    for (i, item) in list.iter().enumerate() {
        if i >= MAX_VALUES {
            return Err(failed_with(format!(
                "'includes' function cannot be applied to lists longer than {MAX_VALUES} values"
            )));
        }
        if equal(&item?, wanted).unwrap_or(false) {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}

fn environment(words: Words) -> &'static Environment {
    static ALL: [OnceLock<Environment>; 8] = [const { OnceLock::new() }; 8];
    let Words { multiple, includes, lists } = words;
    let at = usize::from(multiple) | usize::from(includes) << 1 | usize::from(lists) << 2;
    ALL[at].get_or_init(|| {
        let device = device(words);
        let plain = Environment::kubernetes().declare(&device).variable("device", device.celtype.clone());
        let plain = plain.bindings();
        if includes { plain.functions(INCLUDES, Binding::Unguarded) } else { plain }
    })
}

impl Features {
    /// Upstream: `NewExpressions` and `StoredExpressions`.
    fn environment(self, written: Written) -> &'static Environment {
        let before = written == Written::Before;
        let Features { consumable_capacity, list_attributes: lists } = self;
        environment(Words { multiple: before || consumable_capacity, includes: before || lists, lists })
    }

    /// Reads and checks an expression. Fails in upstream's words.
    pub fn check(self, expression: &str, written: Written) -> Result<Checked, String> {
        let checked = self.environment(written).compile(expression);
        let checked = checked.map_err(|issues| format!("compilation failed: {issues}"))?;
        match checked.output() {
            Type::Bool | Type::Any => Ok(checked),
            Type::Dyn if self.list_attributes => Ok(checked),
            found => Err(format!("must evaluate to bool or the unknown type, not {found}")),
        }
    }
}

/// How large what an expression sees may be: all attributes of a domain alike.
#[derive(Debug)]
pub struct Sizes;

impl SizeEstimator for Sizes {
    fn size(&self, path: &[Arc<str>]) -> Option<SizeEstimate> {
        let mut path = path.to_vec();
        if let [_, of, by, name, ..] = path.as_mut_slice()
            && (&**of, &**by) == ("attributes", "@values")
            && !name.starts_with('@')
        {
            *name = by.clone();
        }
        DEVICE.size(&path)
    }
}

/// The value of a device's attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A whole number.
    Int(i64),
    /// A truth.
    Bool(bool),
    /// A text.
    String(String),
    /// A semantic version.
    Version(String),
    /// Several of one sort.
    List(Vec<Attribute>),
}

impl Attribute {
    fn value(&self) -> Result<Val<'static>, String> {
        Ok(match self {
            Self::Int(value) => Val::Int(*value),
            Self::Bool(value) => Val::Bool(*value),
            Self::String(text) => Val::from(text.clone()),
            Self::Version(text) => {
                let version = Semver::parse(text).map_err(|why| format!("parse semantic version: {why}"))?;
                Val::Semver(Arc::new(version))
            }
            Self::List(several) => {
                Val::from(several.iter().map(Attribute::value).collect::<Result<Vec<_>, _>>()?)
            }
        })
    }
}

/// Values by domain and name. A domain that is not there is empty, so that asking for its names is no error.
#[derive(Debug, Default)]
struct Domains(BTreeMap<String, Map<'static>>);

impl LazyMap for Domains {
    fn find<'b>(&'b self, key: &str) -> Option<Evaluated<'b>> {
        let empty = || Map::of(BTreeMap::new());
        Some(Ok(Val::Map(self.0.get(key).cloned().unwrap_or_else(empty))))
    }

    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

impl Domains {
    /// Names without a domain are in that of the driver.
    fn of(driver: &str, values: Vec<(&str, Val<'static>)>) -> Self {
        let mut domains: BTreeMap<String, BTreeMap<Key<'static>, Val<'static>>> = BTreeMap::new();
        for (name, value) in values {
            let (domain, id) = name.split_once('/').unwrap_or((driver, name));
            let key = Key::String(Text::Shared(id.into()));
            domains.entry(domain.into()).or_default().insert(key, value);
        }
        Self(domains.into_iter().map(|(domain, values)| (domain, Map::of(values))).collect())
    }
}

/// A device, ready to be looked at by any number of expressions.
#[derive(Debug)]
pub struct Device {
    driver: String,
    multiple: bool,
    attributes: Domains,
    capacity: Domains,
}

impl Device {
    /// Names may have a domain before a slash. Fails when a version is none.
    pub fn new(
        driver: &str,
        multiple: bool,
        attributes: &BTreeMap<String, Attribute>,
        capacity: &BTreeMap<String, Quantity>,
    ) -> Result<Self, String> {
        let mut values = Vec::new();
        for (name, attribute) in attributes {
            let value = attribute.value().map_err(|why| format!("attribute {name}: {why}"))?;
            values.push((name.as_str(), value));
        }
        let amounts = capacity.iter();
        let amounts = amounts.map(|(name, value)| (name.as_str(), Val::Quantity(Arc::new(value.clone()))));
        Ok(Self {
            driver: driver.into(),
            multiple,
            attributes: Domains::of(driver, values),
            capacity: Domains::of(driver, amounts.collect()),
        })
    }
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Selector(Program);

impl Selector {
    /// Of an expression that was accepted once. Fails in upstream's words when it does not compile.
    pub fn compile(expression: &str, features: Features) -> Result<Self, String> {
        let checked = features.check(expression, Written::Before)?;
        let program = checked.program().map_err(|why| format!("program instantiation failed: {why}"))?;
        Ok(Self(program))
    }

    /// Whether it selects the device, or why it cannot say.
    pub fn matches(&self, device: &Device) -> Result<bool, String> {
        let value = Val::Map(Map::of_names([
            ("driver", Val::from(device.driver.as_str())),
            ("attributes", Val::Map(Map::lazy(&device.attributes))),
            ("capacity", Val::Map(Map::lazy(&device.capacity))),
            ("allowMultipleAllocations", Val::Bool(device.multiple)),
        ]));
        let result = self.0.evaluate(&[("device", value)], MAX_COST).result;
        match result.map_err(|error| error.to_string())? {
            Val::Bool(selected) => Ok(selected),
            other => {
                Err(format!("CEL result of type {} could not be converted to bool", other.kind().name()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, want: Result<bool, &str>) {
        let attributes = BTreeMap::from([
            ("model".to_owned(), Attribute::String("large".into())),
            ("other.com/slots".to_owned(), Attribute::Int(4)),
            ("version".to_owned(), Attribute::Version("1.2.3".into())),
            (
                "links".to_owned(),
                Attribute::List(["a", "b"].map(|text| Attribute::String(text.into())).into()),
            ),
        ]);
        let capacity = BTreeMap::from([("memory".to_owned(), "80Gi".parse().expect("a quantity"))]);
        let device = Device::new("gpu.com", false, &attributes, &capacity).expect("a device");
        let features = Features { consumable_capacity: true, list_attributes: true };
        let selector = Selector::compile(expression, features).expect("an expression");
        assert_eq!(selector.matches(&device), want.map_err(str::to_owned), "{expression}");
    }

    #[test]
    fn devices_are_selected() {
        check("device.driver == 'gpu.com'", Ok(true));
        check("device.attributes['gpu.com'].model == 'large'", Ok(true));
        check("device.attributes['other.com'].slots >= 4", Ok(true));
        check("device.attributes['gpu.com'].version.isGreaterThan(semver('1.2.0'))", Ok(true));
        check("device.capacity['gpu.com'].memory.compareTo(quantity('100Gi')) >= 0", Ok(false));
        check("device.allowMultipleAllocations", Ok(false));
        check("'x' in device.attributes['nobody.com']", Ok(false));
        check("device.attributes['gpu.com'].colour == 'red'", Err("no such key: colour"));
        check("device.attributes['gpu.com'].links.includes('b')", Ok(true));
        check("device.attributes['gpu.com'].links.exists(link, link == 'c')", Ok(false));
        check("device.attributes['gpu.com'].model.includes('large')", Ok(true));
        check("device.attributes['other.com'].slots.includes('4')", Ok(false));
    }

    #[test]
    fn features_bring_words() {
        let all = Features { consumable_capacity: true, list_attributes: true };
        let check = |features: Features, expression: &str, want: Option<&str>| {
            let wrong = features.check(expression, Written::Now).map(drop).err();
            let first = wrong.as_deref().map(|wrong| wrong.lines().next().unwrap_or_default());
            assert_eq!(first, want, "{expression} {features:?}");
        };
        let shared = "device.allowMultipleAllocations";
        check(all, shared, None);
        let undefined = "compilation failed: ERROR: <input>:1:7: undefined field 'allowMultipleAllocations'";
        check(Features::default(), shared, Some(undefined));
        let includes = "device.attributes['gpu.com'].links.includes('b')";
        check(all, includes, None);
        let undeclared =
            "compilation failed: ERROR: <input>:1:44: undeclared reference to 'includes' (in container '')";
        check(Features::default(), includes, Some(undeclared));
        check(all, "device.attributes['gpu.com'].links", None);
        check(all, "device.driver", Some("must evaluate to bool or the unknown type, not string"));
        // What was written when there was more is compiled still.
        assert!(Selector::compile(includes, Features::default()).is_ok());
        let checked = all.check(includes, Written::Now).expect("an expression");
        assert_eq!(checked.estimate(&Sizes).max, 4 + MAX_VALUES as u64);
    }
}
