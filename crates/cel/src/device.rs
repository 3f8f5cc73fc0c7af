//! Expressions that select devices: what they see of a device, and whether they select it.

use crate::cost::estimate::{SizeEstimate, SizeEstimator};
use crate::env::Environment;
use crate::library::semver::Semver;
use crate::program::Program;
use crate::schema::DeclType;
use crate::types::Type;
use crate::value::{Evaluated, Key, LazyMap, Map, Text, Val};
use apimachinery::quantity::Quantity;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// What an expression may cost, as estimated and as evaluated.
pub const MAX_COST: u64 = 1_000_000;
const MAX_DOMAIN: i64 = 63;
const MAX_ID: i64 = 32;
const MAX_DRIVER: i64 = 63;
const MAX_ATTRIBUTES: i64 = 32;
const MAX_VALUE: i64 = 64;

/// A device as expressions see it.
static DEVICE: LazyLock<Arc<DeclType>> = LazyLock::new(|| {
    let text = |max| DeclType::sized("string", Type::String, 2, max);
    let by_name = |value| {
        let inner = DeclType::map(text(MAX_ID), value, MAX_ATTRIBUTES);
        DeclType::map(text(MAX_DOMAIN), inner, MAX_ATTRIBUTES)
    };
    let quantity = DeclType::simple(Type::object("kubernetes.Quantity"));
    DeclType::object(
        "kubernetes.DRADevice",
        [
            ("driver", text(MAX_DRIVER)),
            ("attributes", by_name(DeclType::sized("any", Type::Any, 1, MAX_VALUE))),
            ("capacity", by_name(quantity)),
            ("allowMultipleAllocations", DeclType::sized("bool", Type::Bool, 4, 1)),
        ],
    )
});

/// The environment of the expressions.
pub static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    Environment::kubernetes().declare(&DEVICE).variable("device", DEVICE.celtype.clone()).bindings()
});

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
    /// Fails in upstream's words when the expression does not compile.
    pub fn compile(expression: &str) -> Result<Self, String> {
        let checked = ENVIRONMENT.compile(expression);
        let checked = checked.map_err(|issues| format!("compilation failed: {issues}"))?;
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
        ]);
        let capacity = BTreeMap::from([("memory".to_owned(), "80Gi".parse().expect("a quantity"))]);
        let device = Device::new("gpu.com", false, &attributes, &capacity).expect("a device");
        let selector = Selector::compile(expression).expect("an expression");
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
    }
}
