package gtid

// MarshalText is String; it makes a Set a string in JSON.
func (s Set) MarshalText() ([]byte, error) { return s.AppendText(nil), nil }

// UnmarshalText is ParseSet.
func (s *Set) UnmarshalText(text []byte) error {
	set, err := ParseSet(string(text))
	if err != nil {
		return err
	}
	*s = set
	return nil
}
