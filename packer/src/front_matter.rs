//! The front matter of a model card.

use std::collections::BTreeMap;

/// The top-level fields of a card's YAML front matter: as much of YAML as model cards use.
pub(crate) struct FrontMatter<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> FrontMatter<'a> {
    /// That of a card; nothing if it does not begin with one.
    pub(crate) fn of(card: &'a str) -> Option<Self> {
        let mut lines = card.lines();
        if lines.next()?.trim_end() != "---" {
            return None;
        }
        let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut current = None;
        for line in lines {
            let text = line.trim();
            if line.trim_end() == "---" {
                return Some(Self(fields));
            }
            if let Some(item) = text.strip_prefix("- ") {
                if let Some(values) = current.and_then(|field| fields.get_mut(field)) {
                    values.push(scalar(item));
                }
            } else if !line.starts_with([' ', '#'])
                && let Some((field, value)) = text.split_once(':')
            {
                let value = value.trim();
                let items = value.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or(value);
                let values = items.split(',').map(scalar).filter(|value| !value.is_empty()).collect();
                fields.insert(field, values);
                current = Some(field);
            }
        }
        None
    }

    /// The values of a field; none if it is not there.
    pub(crate) fn values(&self, field: &str) -> &[&'a str] {
        self.0.get(field).map_or(&[], Vec::as_slice)
    }
}

/// A value without its quotes.
fn scalar(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::FrontMatter;

    #[test]
    fn front_matter_fields_are_read() {
        let card = "---\nlicense: apache-2.0\nbase_model:\n- google/gemma\n  - \"x/y\"\ntags: [coreai, 'qat']\nempty:\n\
            # comment: no\n---\n# Title\nkey: value\n";
        let front_matter = FrontMatter::of(card).unwrap();
        assert_eq!(front_matter.values("license"), ["apache-2.0"]);
        assert_eq!(front_matter.values("base_model"), ["google/gemma", "x/y"]);
        assert_eq!(front_matter.values("tags"), ["coreai", "qat"]);
        assert!(front_matter.values("empty").is_empty());
        assert!(front_matter.values("key").is_empty());
    }

    #[test]
    fn cards_without_front_matter_are_recognized() {
        for card in ["", "# Title\n", "---\nlicense: x\n", "license: x\n---\n"] {
            assert!(FrontMatter::of(card).is_none(), "{card:?}");
        }
    }
}
